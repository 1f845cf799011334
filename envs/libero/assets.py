"""LIBERO's assets: where they are, what a task needs of them, and what is a stand-in.

hf-libero ships none of its meshes and textures. A folder may hold stand-ins for large
visual files: physics is exact with them (they have no contacts and no mass), pixels are
not, so whatever is measured on them says so.
"""

from __future__ import annotations

import hashlib
import struct
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from envs.libero import upstream
from envs.libero.bddl import Problem
from envs.libero.genuine_files import GENUINE
from wamsim.errors import AssetsMissing

VARIABLE = "WAMSIM_LIBERO_ASSETS"  # read by the command line, never here
HUB_DATASET = "lerobot/libero-assets"  # libero/utils/download_utils.py in hf-libero

# What hf-libero looks for in its download folder.
FOLDERS = (
    "articulated_objects",
    "stable_scanned_objects",
    "turbosquid_objects",
    "stable_hope_objects",
)

# Category -> its XML: libero/envs/objects/*.py in hf-libero. All that the 130 tasks name.
_XML = {
    "articulated_objects/{0}.xml": "flat_stove microwave white_cabinet wooden_cabinet",
    "stable_hope_objects/{0}/{0}.xml": (
        "alphabet_soup bbq_sauce butter chocolate_pudding cookies cream_cheese ketchup milk "
        "new_salad_dressing orange_juice salad_dressing tomato_sauce"
    ),
    "stable_scanned_objects/{0}/{0}.xml": (
        "akita_black_bowl basket chefmate_8_frypan glazed_rim_porcelain_ramekin plate white_bowl"
    ),
    "turbosquid_objects/{0}/{0}.xml": (
        "black_book desk_caddy moka_pot porcelain_mug red_coffee_mug white_yellow_mug wine_bottle "
        "wine_rack wooden_tray wooden_two_layer_shelf yellow_book"
    ),
}
OBJECT_XML = {c: form.format(c) for form, names in _XML.items() for c in names.split()}

# Categories that are part of the arena. libero/envs/problems/*.py
SURFACES = {"table", "floor", "kitchen_table", "living_room_table", "study_table"}

# Problem class -> arena XML, floor and wall texture in place of the XML's own two.
# libero/envs/problems/*.py (scene_xml, scene_properties), libero/envs/arenas/style.py
_LIGHT = ("textures/light-gray-floor-tile.png", "textures/light-gray-plaster.png")
ARENA_XML = {
    "libero_tabletop_manipulation": ("scenes/libero_tabletop_base_style.xml", *_LIGHT),
    "libero_floor_manipulation": ("scenes/libero_floor_base_style.xml", *_LIGHT),
    "libero_study_tabletop_manipulation": ("scenes/libero_study_base_style.xml", *_LIGHT),
    "libero_kitchen_tabletop_manipulation": (
        "scenes/libero_kitchen_tabletop_base_style.xml",
        "textures/gray_ceramic_tile.png",
        "textures/yellow_linen_wall_texture.png",
    ),
    "libero_living_room_tabletop_manipulation": (
        "scenes/libero_living_room_tabletop_base_style.xml",
        "textures/seamless_wood_planks_floor.png",
        "textures/light-gray-plaster.png",
    ),
}
_STYLED = {"texplane", "tex-wall"}  # textures of the arena XML that a style replaces

# The smallest genuine texture is 128x128; the smallest of the files that stand-ins were
# made for is 4.3 MB.
_STAND_IN_PIXELS = 64
_STAND_IN_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Completeness:
    """What a task finds in a folder of assets, as paths relative to it.

    Attributes:
        needed: Every XML, mesh and texture.
        missing: Those that are not there; the scene cannot be compiled.
        stand_ins: Those that are not LIBERO's own; pixels differ.
    """

    needed: tuple[str, ...]
    missing: tuple[str, ...]
    stand_ins: tuple[str, ...]

    @property
    def genuine(self) -> bool:
        """Whether physics and pixels are LIBERO's own."""
        return not self.missing and not self.stand_ins


def find(given: Path | None) -> Path | None:
    """The folder of assets: the given one, or where hf-libero keeps its download; else None."""
    if given is not None:
        return given if _looks_right(given) else None
    for folder in default_folders():
        if _looks_right(folder):
            return folder
    return None


def require(given: Path | None) -> Path:
    """As `find`.

    Raises:
        AssetsMissing: There is none; says where we looked and how to get them.
    """
    folder = find(given)
    if folder is None:
        looked = [given] if given is not None else default_folders()
        raise AssetsMissing(
            f"LIBERO's assets are not where we looked. {how_to_get()} Looked in: "
            f"{', '.join(str(f) for f in looked)}"
        )
    return folder


def how_to_get() -> str:
    """The sentences that end every complaint about assets."""
    return (
        f"Download them with `hf download {HUB_DATASET} --repo-type dataset --local-dir DIR` "
        f"(or take libero/libero/assets of a `git clone` of LIBERO) and set {VARIABLE}=DIR."
    )


def default_folders() -> list[Path]:
    """Where hf-libero itself looks (libero/libero/__init__.py, get_assets_path)."""
    return [upstream.package_dir() / "assets", Path("~/.cache/libero/assets").expanduser()]


def completeness(problem: Problem, folder: Path) -> Completeness:
    """Compare what a task needs with what a folder holds."""
    arena, *styles = ARENA_XML[problem.kind]
    needed = {arena, *styles} | set(_referenced(folder, arena))
    for category in problem.categories() - SURFACES:
        needed |= {OBJECT_XML[category], *_referenced(folder, OBJECT_XML[category])}
    files = sorted(needed)
    missing = tuple(f for f in files if not (folder / f).is_file())
    stand_ins = tuple(f for f in files if f not in missing and is_stand_in(folder, f))
    return Completeness(needed=tuple(files), missing=missing, stand_ins=stand_ins)


def require_complete(problem: Problem, given: Path | None) -> Path:
    """The folder of assets, holding everything that a task needs.

    Raises:
        AssetsMissing: There is no folder, or files are missing in it; names some.
    """
    folder = require(given)
    missing = completeness(problem, folder).missing
    if missing:
        raise AssetsMissing(
            f"{len(missing)} of LIBERO's asset files are missing, among them "
            f"{', '.join(missing[:3])}. {how_to_get()} Looked in: {folder}"
        )
    return folder


@cache
def is_stand_in(folder: Path, file: str) -> bool:
    """Whether an existing file is not LIBERO's own.

    In this order: a file whose genuine size is known is judged by its size; a file listed
    in the folder's STANDINS.txt is one unless it has become large; a texture of 64x64
    pixels or less is one.
    """
    size = (folder / file).stat().st_size
    if file in GENUINE:
        return size != GENUINE[file][0]
    if file in _listed(folder):
        return size < _STAND_IN_BYTES
    return file.endswith(".png") and _pixels(folder / file) <= _STAND_IN_PIXELS


def wrong_hashes(folder: Path) -> list[str]:
    """Files of known genuine hash that are there, have the right size, and differ all the same."""
    wrong: list[str] = []
    for file, (size, digest) in GENUINE.items():
        path = folder / file
        if path.is_file() and path.stat().st_size == size:
            with path.open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                    wrong.append(file)
    return wrong


@cache
def fingerprint(folder: Path) -> str:
    """Hash of a folder's listing: content of XMLs, sizes of everything else."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        what = path.read_bytes() if path.suffix == ".xml" else str(path.stat().st_size).encode()
        digest.update(f"{name}\0{hashlib.sha256(what).hexdigest()}\n".encode())
    return digest.hexdigest()


def _looks_right(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in FOLDERS)


@cache
def _listed(folder: Path) -> frozenset[str]:
    path = folder / "STANDINS.txt"
    return frozenset(path.read_text().split()) if path.is_file() else frozenset()


@cache
def _referenced(folder: Path, xml: str) -> tuple[str, ...]:
    """Files that the <asset> section of an XML names, relative to the assets folder."""
    path = folder / xml
    try:
        elements = ET.parse(path).getroot().findall("./asset/*[@file]")
    except (OSError, ET.ParseError):  # missing or damaged; compiling says so
        return ()
    root = folder.resolve()
    found: dict[tuple[str, str | None], str] = {}
    for element in elements:
        file = (path.parent / element.attrib["file"]).resolve()
        styled = xml.startswith("scenes/") and element.get("name") in _STYLED
        if not styled and file.is_relative_to(root):
            # Of two with one name robosuite keeps the first (flat_stove.xml has such).
            found.setdefault((element.tag, element.get("name")), file.relative_to(root).as_posix())
    return tuple(found.values())


def _pixels(path: Path) -> int:
    """The longer side of a PNG, from its header."""
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24:
        return 0
    return max(struct.unpack(">II", head[16:24]))
