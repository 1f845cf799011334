# wamsim on a CPU, with software OpenGL. From the project's root:
#   docker build --file docker/cpu.Dockerfile --tag wamsim:cpu .
#   docker run --rm --volume "$PWD/results:/opt/wamsim/results" wamsim:cpu eval -p oracle -s tabletop
FROM python:3.11-slim-bookworm

# PyTorch's own index has the builds without CUDA, 2 GB smaller; constraints.txt names the version.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

# --- the same in both (tests/test_docker.py) ---
WORKDIR /opt/wamsim
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends make git \
 && rm -rf /var/lib/apt/lists/*
COPY . .
# The Makefile's own target: system-packages.txt, constraints.txt, requirements/simulators.txt.
RUN make install && rm -rf /var/lib/apt/lists/* /root/.cache
ENV PATH=/opt/wamsim/.venv/bin:$PATH
ENV MUJOCO_GL=egl
ENV WAMSIM_CACHE=/cache
VOLUME /cache
ENTRYPOINT ["wamsim"]
CMD ["doctor"]
