"""The public face: what `import pipeline` offers, and what it costs."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import SPACE, make_photos

import pipeline


def test_every_exported_name_is_there():
    assert pipeline.__all__ == sorted(pipeline.__all__)
    assert all(getattr(pipeline, name) for name in pipeline.__all__)
    assert dir(pipeline) == pipeline.__all__
    with pytest.raises(AttributeError, match="no attribute 'extrakt'"):
        pipeline.extrakt  # noqa: B018


def test_import_is_light():
    script = "import sys, pipeline; assert not {'torch', 'numpy', 'h5py', 'click'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_features_serve_scikit_learn_directly(tmp_path):
    from sklearn.linear_model import LogisticRegression

    root = make_photos(tmp_path / "photos", per_class=15)
    made = pipeline.extract(str(root), cache_dir=tmp_path / "cache", workers=1, test_fraction=0.3, **SPACE)
    features = pipeline.open_cache(made.cache, cache_dir=tmp_path / "cache")
    assert (tuple(features.x.shape), features.classes) == ((45, 1024), ("apple", "beet", "corn"))
    assert len(features.ids) == len(features.split) == len(features.y) == 45
    x, y = features.numpy("train")
    assert len(x) == (features.split == "train").sum()
    assert np.array_equal(features.numpy()[0][features.rows("train")], x)
    LogisticRegression(max_iter=500).fit(x * 1e3, y)
    assert made.cache in repr(features)


def test_features_from_anywhere_else_train_a_head(tmp_path):
    import torch

    from pipeline.heads.minibatch import train_minibatch
    from pipeline.heads.settings import HeadSettings
    from pipeline.selection import choose_rows

    y = torch.arange(40) % 2
    noise = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    features = pipeline.Features(noise + 6 * y[:, None], y, ("a", "b"))
    rows = choose_rows(features, val_fraction=0.25)
    settings = HeadSettings(lr=0.1, epochs=20, batch_size=8)
    _, _, epochs = train_minibatch(features.x, features.y, rows.train, rows.val, 2, settings)
    assert epochs[-1].val_accuracy == 1.0


def test_extract_works_from_an_unguarded_script(tmp_path):
    make_photos(tmp_path / "photos", per_class=3)
    (tmp_path / "script.py").write_text(
        f"import pipeline\nprint(pipeline.extract('photos', workers=2, **{SPACE!r}).rows)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "9\n"
