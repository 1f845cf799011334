# wamsim on an NVIDIA GPU: networks in CUDA, pictures through the driver's EGL. The host needs the
# NVIDIA Container Toolkit, which brings the driver's libraries into any image. From the root:
#   docker build --file docker/gpu.Dockerfile --tag wamsim:gpu .
#   docker run --rm --gpus all --volume "$PWD/results:/opt/wamsim/results" wamsim:gpu doctor
FROM python:3.11-slim-bookworm

# graphics: without it the toolkit leaves EGL out and MuJoCo draws in software.
ENV NVIDIA_VISIBLE_DEVICES=all
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
# What libglvnd reads to find the driver's EGL; older toolkits do not bring it.
RUN mkdir -p /usr/share/glvnd/egl_vendor.d \
 && printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0"}}\n' \
  > /usr/share/glvnd/egl_vendor.d/10_nvidia.json

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
