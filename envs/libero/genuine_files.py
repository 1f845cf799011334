"""Sizes and hashes of LIBERO's large visual files, to tell them from stand-ins.

Source: the Git LFS pointers of github.com/yilin-wu98/libero-ood at 377b2ea, a fork that
keeps LIBERO's assets unchanged (its pointers agree with the files that we have).
"""

from __future__ import annotations

# path in the assets folder -> (bytes, sha256)
GENUINE: dict[str, tuple[int, str]] = {
    "scenes/coffee_table_seats/FabricLeatherBuffaloRustic001_COL_VAR1_4K.png": (
        12825082,
        "6fabe46d134c4e0c7058795535df2e84a34bd5e2af83f881037a398f20629d57",
    ),
    "scenes/floor_lamp/visual/floor_lamp_vis.msh": (
        7983160,
        "6de4776381809fdc2f7a6eae997a8269fb40fe09ef977e05a3e4fa1949a4e949",
    ),
    "scenes/kitchen_background/visual/kitchen_background_vis.msh": (
        7534528,
        "6b2487166e07650ba787129919fb3c4f77bfd912fdd4e265f5bf68992175417a",
    ),
    "scenes/kitchen_background_pot/visual/kitchen_background_pot_vis.msh": (
        4344316,
        "f3348ee8738bcaf84b6f9df6cae65d764bbc159410aea32d5d40c09dc58b69ec",
    ),
    "scenes/kitchen_background_stove/visual/kitchen_background_stove_vis.msh": (
        6212608,
        "0efe7517df5bb76730dd0b951dcf40644e7c494005a89421229b422217998702",
    ),
    "scenes/living_room/visual/living_room_vis.msh": (
        6514576,
        "326c50b18dfce7d338473ab8d99edce64c752cfef0203495faa2471dcafd4f8b",
    ),
    "scenes/short_coffee_table/Marble062_COL_4K.png": (
        9625750,
        "6cc288b8006e1931f1904ae50741539e4c44c1ed67686822386c96aad013864c",
    ),
    "scenes/wall_decoration/wall_decoration_texture.png": (
        4492846,
        "b30b2b6f7499d05a4c502e3699027e14e9646023f4035b14b56f1fb55703bc3e",
    ),
    "stable_scanned_objects/akita_black_bowl/texture.png": (
        12751242,
        "8a646d98b084b7400dd91beed9c83e10b4a4dca572896b3974356b7937a4bd85",
    ),
    "stable_scanned_objects/akita_black_bowl/visual/akita_black_bowl_vis.msh": (
        4592392,
        "6474d536a740e995c3a2eaeb74c61e14da94131b0b222c250b61b30b13d11229",
    ),
    "stable_scanned_objects/basket/texture.png": (
        11112400,
        "89c2107a39ce27d7dffc383153153e021958408cd6fffd8bf8f318a0bb2c302b",
    ),
    "stable_scanned_objects/basket/visual/basket_vis.msh": (
        7170136,
        "51ca04e71fbca8a4fdd5fa86362867d414e401923e1cb9b0daed488513b46734",
    ),
    "stable_scanned_objects/plate/texture.png": (
        8660937,
        "6b742142bf0e29a90d76c4b0254a4481e9eff4807eff3ac6c4ac67a5888fb005",
    ),
    "stable_scanned_objects/white_bowl/texture.png": (
        7982813,
        "a850aaf925421f49a7399f6fc80444a1ab5de7b1110f4294598c5dc2231ea3fd",
    ),
    "textures/dark_green_plaster_wall.png": (
        6873572,
        "a2a9531fc002626a79a7ac3aaaee26a15bb5fee03253ab80f6b3004f3c9d1878",
    ),
    "textures/gray_wall.png": (
        7088154,
        "c90b41e7f3f0b32635804f47811bc8deba14cf561b1af40ec62972fb6039cef9",
    ),
    "turbosquid_objects/desk_caddy/desk_caddy_texture.png": (
        11230178,
        "ea07fb85ab5ef7167040e459ae4442827d114d778aaf4f6a8229bc3898406238",
    ),
    "turbosquid_objects/porcelain_mug/porcelain_mug_texture.png": (
        7293802,
        "bab4363b4e86e3352718ef1c3849a632fa06f83528bb408f4b533ceb01b3bc25",
    ),
    "turbosquid_objects/red_coffee_mug/red_coffee_mug_texture.png": (
        9780486,
        "056fe075297343bd294678be0f8df694a4f4e0563f42033bb167ce6b5bd0b3a9",
    ),
    "turbosquid_objects/white_yellow_mug/white_yellow_mug_texture.png": (
        8119611,
        "152a4b711c33e8cb6956233043580331bd0f54d5b3dbc13a9bc870201b295890",
    ),
    "turbosquid_objects/wooden_tray/crate_mat_BaseColor.png": (
        4988248,
        "3524386ee45899ff14c6e386294e2552f3fb11d4e0f478ef3e71f055f68f800a",
    ),
}
