"""(v): heads on k cached views against plain images, and against fresh views in every epoch, computed end to end."""

from common import script

from pipeline.benchmark.views import measure_views

FULL = {
    "images": "digits",
    "backbone": "shufflenet_v2_x0_5",
    "weights": "none",
    "image_size": 64,
    "mean": 0.5,
    "std": 0.5,
    "augment": "crop:0.8-1,rotate:10",
    "views": 4,
    "epochs": 20,
    "hidden": 0,
    "seeds": 3,
    "online_rows": 500,
    "online_epochs": 4,
    "cache_dir": "",
}
SMALL = {"views": 2, "epochs": 2, "seeds": 2, "online_rows": 64, "online_epochs": 1, "image_size": 32}

if __name__ == "__main__":
    script(measure_views, full=FULL, quick=SMALL)
