"""The command line: exit code, words, and what is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import BACKBONE, make_photos

from pipeline.cli.main import COMMANDS, _interrupted
from pipeline.cli.main import cli as group
from pipeline.console import Screen

PIPELINE = [sys.executable, "-m", "pipeline"]


def test_help_names_every_command_and_needs_no_torch():
    script = (
        "import sys\nfrom pipeline.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as e:\n    assert not e.code\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'h5py', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_stand_on_lines_of_their_own_in_the_help(cli, name):
    text = cli(name, "--help").out
    assert "\\b" not in text
    assert name != "extract" or "\n    pipeline extract ./photos --backbone resnet18\n" in text


@pytest.mark.parametrize("arguments", [["cache", "ls"], ["runs"]])
def test_looking_needs_neither_torch_nor_scikit_learn(tmp_path, arguments):
    script = (
        "import sys\nfrom pipeline.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as e:\n    assert not e.code\n"
        "heavy = {'torch', 'torchvision', 'sklearn'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_fits_its_line_in_the_overview(cli, name):
    result = cli(name, "--help")
    assert result.code == 0
    assert "--json" in result.out
    command = group.get_command(None, name)
    assert command is not None
    assert command.help


def test_the_three_commands_and_what_they_leave(cli, photos):
    made = cli("extract", photos, *BACKBONE, "--workers", 1, "--test-fraction", 0.3)
    assert made.code == 0, made.err
    assert "36 rows x 1,024 features" in made.out
    assert "computed 36, reused 0" in made.out
    for word in ("source", "backbone", "images", "compute", "next: pipeline train-head"):
        assert word in made.err
    trained = cli("train-head", "latest", "--epochs", 2)
    assert trained.code == 0, trained.err
    assert "run 0001" in trained.out
    assert Path("runs/0001/head.safetensors").is_file()
    evaluated = cli("evaluate", "0001", "--end-to-end")
    assert evaluated.code == 0, evaluated.err
    assert "the same model" in evaluated.out
    assert Path("runs/0001/evaluation-test.json").is_file()
    assert "0001" in cli("runs").out
    assert "1,024" in cli("cache", "ls").out


def test_json_is_one_document_with_the_fields_others_rely_on(cli, photos):
    made = cli("--json", "extract", photos, *BACKBONE, "--workers", 1, "--test-fraction", 0.3)
    document = json.loads(made.out)
    wanted = {"cache", "path", "space", "rows", "dim", "computed", "reused", "skipped", "seconds", "images_per_second"}
    assert wanted <= set(document)
    assert len(document["space"]) == 64
    trained = json.loads(cli("train-head", document["cache"][:5], "--epochs", 2, "--json").out)
    assert {"run", "path", "epochs", "metrics"} <= set(trained)
    fields = {"epoch", "seconds", "train_loss", "train_accuracy", "val_loss", "val_accuracy"}
    assert [set(epoch) for epoch in trained["epochs"]] == [fields, fields]
    evaluated = json.loads(cli("evaluate", "--json", trained["run"], "--end-to-end").out)
    assert {"run", "split", "n", "metrics", "end_to_end"} <= set(evaluated)
    proof = {"accuracy", "max_abs_logit_difference", "prediction_agreement", "images_per_second"}
    assert proof <= set(evaluated["end_to_end"])
    assert json.loads(cli("runs", "--json").out)["runs"][0]["test_accuracy"] == evaluated["metrics"]["accuracy"]
    assert json.loads(cli("cache", "ls", "--json").out)["entries"][0]["cache"] == document["cache"]


def test_quiet_prints_ids_only(cli, photos):
    made = cli("extract", photos, *BACKBONE, "--workers", 1, "-q")
    assert made.out.strip() == Path(next(Path("cache").glob("*/entry.json")).parent).name
    assert made.err == ""


def test_dry_run_plans_and_writes_nothing(cli, photos):
    result = cli("extract", photos, *BACKBONE, "--dry-run", "--json")
    plan = json.loads(result.out)["plan"]
    assert (plan["samples"], plan["state"], plan["rows_known"]) == (36, "new", 0)
    assert not Path("cache").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "said"),
    [
        (["extract", "nowhere/at/all", *BACKBONE], 3, "data", "no folder nowhere/at/all"),
        (["extract", "cifr10", *BACKBONE], 3, "data", "Did you mean 'cifar10'"),
        (["extract", "digits", "--backbone", "resnet8"], 2, "usage", "Did you mean 'resnet18'"),
        (["extract", "digits"], 2, "usage", "--backbone"),
        (["extract", "digits", *BACKBONE, "--mean", "a,b"], 2, "usage", "is not one number or three"),
        (["extract", "digits", *BACKBONE, "--device", "cuda:77"], 2, "usage", "cuda:77"),
        (["train-head", "zz"], 4, "cache", "no cache entry 'zz'"),
        (["evaluate", "0007"], 3, "data", "no run '0007'"),
        (["evaluate", "0007", "--workers", "-3"], 2, "usage", "--workers"),
        (["exract", "digits"], 2, "usage", "Did you mean 'extract'"),
        (["run", "nothing.toml"], 2, "usage", "no configuration file"),
        (["backbones", "resnext9"], 2, "usage", "no backbone matches"),
        (["cache", "rm"], 2, "usage", "nothing to remove"),
        (["cache", "info"], 4, "cache", "no cache entry"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_with_a_way_out(cli, arguments, code, kind, said):
    told = cli(*arguments)
    assert told.code == code
    assert told.out == ""
    assert said in told.err
    assert "Traceback" not in told.err
    assert told.err.count("error:") == 1
    document = json.loads(cli(*arguments, "--json").out)
    assert document["error"]["kind"] == kind
    assert said in document["error"]["message"] + document["error"]["hint"]


def test_folder_without_classes_says_what_it_found(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    result = cli("extract", "empty", *BACKBONE)
    assert (result.code, "no class folders" in result.err) == (3, True)
    make_photos(tmp_path / "flat", per_class=2, classes=("x",))
    result = cli("extract", "flat/x", *BACKBONE)
    assert (result.code, "2 images directly in it" in result.err) == (3, True)
    result = cli("extract", "flat", *BACKBONE)
    assert (result.code, "needs two" in result.err) == (3, True)


def test_bad_images_by_default_and_skipped(cli, photos):
    (photos / "apple" / "00.jpg").write_bytes(b"")
    failed = cli("extract", photos, *BACKBONE, "--workers", 1)
    assert (failed.code, "apple/00.jpg is empty" in failed.err) == (3, True)
    skipped = cli("extract", photos, *BACKBONE, "--workers", 1, "--on-bad-image", "skip")
    assert skipped.code == 0
    assert "skipped.csv" in skipped.err


def test_traceback_only_on_request(cli):
    from pipeline.cli import main
    from pipeline.errors import DataError

    with pytest.raises(DataError):
        main(["--traceback", "extract", "nowhere/at/all", *BACKBONE])


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_interruption_says_how_to_go_on_and_leaves_no_process(tmp_path, stop):
    make_photos(tmp_path / "photos", per_class=80)
    slow = ["--image-size", "128", "--batch-size", "4", "--shard-rows", "8", "--workers", "2"]
    command = [*PIPELINE, "extract", "photos", *BACKBONE, *slow]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(tmp_path.glob("cache/plans/*/records/0*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Go on with: pipeline extract photos" in said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    again = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert 8 <= json.loads(again.stdout)["reused"] < 240


def test_backbones_and_version(cli):
    assert "resnet18" in cli("backbones", "resnet*").out
    found = json.loads(cli("backbones", "--json").out)["backbones"]
    assert len(found) >= 80
    assert cli("--version").out.startswith("pipeline 0.")


def test_doctor_explains_the_installation(cli):
    result = cli("doctor", "--json")
    document = json.loads(result.out)
    assert result.code == (0 if document["healthy"] else 1)
    assert {"python", "packages", "torch", "cores", "cache", "loading"} <= {
        check["name"] for check in document["checks"]
    }


def test_the_next_step_after_extract_and_import_fits_the_labels(cli, tmp_path):
    photos = make_photos(tmp_path / "photos", 2)
    for options, step in (((), "train-head {}"), (("--unlabelled",), "predict RUN --cache {}")):
        made = cli("extract", photos, *BACKBONE, "--workers", 1, *options)
        cache = made.out.split()[1]
        assert f"next: pipeline {step.format(cache)}" in made.err
        assert cli("cache", "export", cache, "--single", f"{cache}.h5").code == 0
        taken = cli("cache", "import", f"{cache}.h5", "--cache-dir", "there")
        assert f"next: pipeline {step.format(cache)} --cache-dir there" in taken.err


def test_a_class_missing_on_a_side_is_counted_in_words(cli, tmp_path):
    make_photos(tmp_path / "photos" / "train", 2)
    make_photos(tmp_path / "photos" / "test", 1, ("apple", "beet"))
    said = cli("extract", tmp_path / "photos", *BACKBONE, "--workers", 1).err
    assert "the test split has no images of 1 class: corn" in said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["extract", "photos"], "what is finished is kept. Go on with: pipeline extract photos"),
        (["sweep", "--lr", "1e-3"], "nothing is left behind. Start again with: pipeline sweep --lr 1e-3"),
        (["sweep", "--lr", ",".join(["1e-3"] * 200)], "Start again with: the same command"),
        (["-v", "audit"], "nothing is left behind. Start again with: pipeline -v audit"),
    ],
    ids=["extract", "sweep", "long", "audit"],
)
def test_an_interrupted_command_promises_no_more_than_it_kept(command, said, capsys):
    assert _interrupted(Screen(), command) == 130
    assert said in " ".join(capsys.readouterr().err.split())
