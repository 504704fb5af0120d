"""(finetune): an epoch from a cached cut-point against one from images, with the same layers frozen."""

from common import script

from pipeline.benchmark.finetuning import measure_finetuning

FULL = {
    "backbone": "mobilenet_v2",
    "layer": "features.15",
    "weights": "none",
    "images": "",
    "image_size": 224,
    "jpeg_size": 32,
    "batch_size": 64,
    "repeats": 5,
    "ask": 6.0,
}
SMALL = {"image_size": 64, "batch_size": 8, "repeats": 2, "ask": 0.0}

if __name__ == "__main__":
    script(measure_finetuning, full=FULL, quick=SMALL)
