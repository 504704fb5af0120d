"""(s): the model of time and money against extractions of more rows than its constants were measured on."""

from common import script

from pipeline.benchmark.costs import check_model

FULL = {"few": 10_000, "many": 40_000, "rows": (100_000, 1_000_000)}
SMALL = {"few": 512, "many": 1_024, "rows": (2_048,)}

if __name__ == "__main__":
    script(check_model, full=FULL, quick=SMALL)
