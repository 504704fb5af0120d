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


def test_run_sweeps_where_the_file_says_so(cli, photos, tmp_path):
    (tmp_path / "a.toml").write_text(
        '[extract]\nsource = "photos"\nbackbone = "shufflenet_v2_x0_5"\nweights = "none"\nimage_size = 32\n'
        "mean = 0.5\nworkers = 1\ntest_fraction = 0.3\n[head]\nepochs = 2\nweight_decay = 0.0\nstandardize = true\n"
        "[sweep]\nlr = [1e-30]\nseeds = 2\n"
    )
    told = json.loads(cli("run", "a.toml", "--set", "sweep.lr=[1e-30, 0.01]", "--json").out)
    assert [one["settings"]["lr"] for one in told["sweep"]["settings"]] == [0.01, 1e-30]
    assert all(one["settings"]["standardize"] for one in told["sweep"]["settings"])
    assert told["sweep"]["heads"] == 4
    assert told["train_head"]["settings"]["lr"] == 0.01
    assert told["sweep"]["run"] == told["train_head"]["run"] == told["evaluate"]["run"]
    shown = cli("run", "a.toml", "--set", "sweep.folds=2")
    assert shown.code == 0, shown.err
    assert "4 heads of 1 setting" in shown.err
    assert "run 0002" in shown.out
    assert "best of 1 by accuracy on 2 folds, mean of 2 seeds" in shown.out
    refused = cli("run", "a.toml", "--lr", "0.1")
    assert (refused.code, "[sweep] has its own lr" in refused.err) == (2, True)
