"""`pipeline run`: three verbs from one file, stage 1 done once."""

import json


def test_run_does_all_three_and_reuses_stage_one(cli, photos, tmp_path):
    (tmp_path / "a.toml").write_text(
        '[extract]\nsource = "photos"\nbackbone = "shufflenet_v2_x0_5"\nweights = "none"\nimage_size = 32\n'
        "mean = 0.5\nworkers = 1\ntest_fraction = 0.3\n[head]\nepochs = 2\n[evaluate]\nend_to_end = true\n"
    )
    first = json.loads(cli("run", "a.toml", "--json").out)
    assert (first["extract"]["computed"], len(first["train_head"]["epochs"])) == (36, 2)
    assert first["evaluate"]["end_to_end"]["prediction_agreement"] == 1.0
    shown = cli("run", "a.toml", "--epochs", 3, "--set", "head.lr=0.01", "--lr", "0.02")
    assert shown.code == 0, shown.err
    assert "computed 0, reused 36" in shown.out
    assert "lr 0.01" in shown.err
    assert "run 0002" in shown.out


def test_run_refuses_wrong_settings_before_stage_one(cli, photos, tmp_path):
    (tmp_path / "a.toml").write_text(
        '[extract]\nsource = "photos"\nbackbone = "shufflenet_v2_x0_5"\n[head]\nlr = -1.0\n'
    )
    result = cli("run", "a.toml")
    assert (result.code, "lr must be above 0" in result.err) == (2, True)
    assert not (tmp_path / "cache").exists()
