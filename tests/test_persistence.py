"""Estimators in files without pickle, and what any stored form costs and warns of."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import skops.io
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import sktarget.estimators._fitted
import sktarget.propagation
from sktarget import (
    TargetSpaceClassifier,
    TargetSpaceRegressor,
    TargetSpaceSequenceClassifier,
    _archive,
)
from sktarget.persistence import load, save
from tests.estimators.support import (
    ALL_EPOCHS,
    assert_same_weights,
    class_data,
    fit_quietly,
    for_both,
    label_data,
    problem,
)

ROOT = Path(__file__).parents[1]
SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (5,),
    "max_iter": 5,
    "random_state": 0,
    **ALL_EPOCHS,
}


def through_file(estimator: Any, folder: Path, **parameters: Any) -> Any:
    save(estimator, folder / "model.npz")
    return load(folder / "model.npz", **parameters)


def two_layers(n_features: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_features, 6), nn.Tanh(), nn.Linear(6, n_outputs))


def three_layers(n_features: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(two_layers(n_features, 4), nn.Tanh(), nn.Linear(4, n_outputs))


# --- the file -------------------------------------------------------------------------


@for_both
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"warm_start": True, "shortcuts": True, "dropout": 0.1},
        {"parameterization": "weights", "batch_norm": True, "early_stopping": True},
        {"solver": "lbfgs", "warm_start": True},
        {"fixed_batch": "noise", "n_iter_no_change": np.inf, "lam": np.float32(0.5)},
    ],
    ids=lambda settings: ",".join(settings) or "defaults",
)
def test_file_holds_all(kind: type, settings: dict[str, Any], tmp_path: Path) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**(SMALL | settings)), X, y)
    found = through_file(estimator, tmp_path)
    assert type(found) is kind
    assert found.get_params() == estimator.get_params()
    assert vars(found).keys() == vars(estimator).keys()
    np.testing.assert_array_equal(found.predict(X), estimator.predict(X))
    assert found.loss_curve_ == estimator.loss_curve_
    # ... and training goes on, or begins again, as it would have.
    assert_same_weights(fit_quietly(found, X, y), fit_quietly(estimator, X, y))


@pytest.mark.parametrize(
    "labels", [["no", "yes"], [False, True], [2.0, -1.0], np.array(["a", "b"], object)]
)
def test_file_holds_labels_of_any_kind(labels: Any, tmp_path: Path) -> None:
    X, y = class_data()
    names = np.asarray(labels)[y]
    estimator = TargetSpaceClassifier(**SMALL, class_weight={labels[0]: 2.0})
    found = through_file(fit_quietly(estimator, X, names), tmp_path)
    np.testing.assert_array_equal(found.predict(X), estimator.predict(X))
    assert found.classes_.dtype == estimator.classes_.dtype
    assert found.class_weight == {labels[0]: 2.0}


def test_file_holds_frames_and_multilabel(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    X, y = label_data()
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), frame, y)
    found = through_file(estimator, tmp_path)
    np.testing.assert_array_equal(found.predict(frame), estimator.predict(frame))
    assert found.feature_names_in_.tolist() == list("abcdef")
    with pytest.raises(ValueError, match="feature names"):
        found.predict(frame[list("fedcba")])


def test_file_holds_images_and_sequences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X: Any = rng.normal(size=(40, 1, 8, 8)).astype("f4")
    images = TargetSpaceClassifier(**SMALL, conv_layers=[(3, 4, 2)], warm_start=True)
    found = through_file(fit_quietly(images, X, y), tmp_path)
    np.testing.assert_array_equal(found.predict_proba(X), images.predict_proba(X))
    fit_quietly(found, X, y), fit_quietly(images, X, y)
    np.testing.assert_array_equal(found.predict_proba(X), images.predict_proba(X))
    X = rng.integers(1, 9, (40, 7))
    tokens = TargetSpaceSequenceClassifier(
        **SMALL, recurrent_layer_sizes=(4,), vocabulary_size=9, embedding_dim=3
    )
    found = through_file(fit_quietly(tokens, X, y), tmp_path)
    np.testing.assert_array_equal(found.predict_proba(X), tokens.predict_proba(X))
    trusted = ["sktarget.estimators._sequence_classifier.TargetSpaceSequenceClassifier"]
    data = skops.io.dumps(tokens)
    assert skops.io.get_untrusted_types(data=data) == trusted
    found = skops.io.loads(data, trusted=trusted)
    np.testing.assert_array_equal(found.predict(X), tokens.predict(X))


def test_objects_as_parameters_are_asked_for(tmp_path: Path) -> None:
    X, y = class_data()
    generator = np.random.RandomState(0)
    settings = SMALL | {"random_state": generator, "callbacks": []}
    estimator = TargetSpaceClassifier(**settings, module=two_layers)
    path = tmp_path / "model.npz"
    save(fit_quietly(estimator, X, y), path)
    with pytest.raises(ValueError, match=r"module, random_state.*load\(path, module="):
        load(path)
    with pytest.raises(ValueError, match=r"TargetSpaceClass.* no parameter widht"):
        load(path, module=two_layers, random_state=1, widht=3)
    found = load(path, module=two_layers, random_state=1, lam=3.0)
    assert (found.random_state, found.lam) == (1, 3.0)
    np.testing.assert_array_equal(found.predict(X), estimator.predict(X))
    with pytest.raises(ValueError, match="module makes a different network"):
        load(path, module=three_layers, random_state=1)
    with pytest.raises(ValueError, match="width"):
        load(path, module=two_layers, random_state=1, width=3)
    with pytest.raises(ValueError, match="made by a module of the user's: give the sa"):
        load(path, module=None, random_state=1)
    with pytest.raises(ValueError, match="module makes a different network"):
        load(path, module=3, random_state=1)
    save(fit_quietly(TargetSpaceClassifier(**SMALL), X, y), path)
    with pytest.raises(ValueError, match="made by no module: leave it out"):
        load(path, module=two_layers)


def test_only_fitted_estimators_of_the_package_are_saved(tmp_path: Path) -> None:
    class Mine(TargetSpaceRegressor):
        pass

    X, y = problem(TargetSpaceRegressor)
    with pytest.raises(NotFittedError):
        save(TargetSpaceRegressor(), tmp_path / "model")
    pipeline = make_pipeline(StandardScaler(), TargetSpaceRegressor(**SMALL))
    for other in (fit_quietly(pipeline, X, y), fit_quietly(Mine(**SMALL), X, y), 3):
        with pytest.raises(TypeError, match="save takes a fitted estimator"):
            save(other, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_files_name_classes_by_their_public_place(tmp_path: Path) -> None:
    path = tmp_path / "model"
    X, y = class_data()
    estimator = fit_quietly(TargetSpaceClassifier(**SMALL), X, y)
    save(estimator, path)
    content = _archive.read(path, "estimator")
    assert content["class"] == "sktarget.estimators.TargetSpaceClassifier"
    # Where it lies, as files of earlier versions say.
    where = f"{TargetSpaceClassifier.__module__}.TargetSpaceClassifier"
    _archive.write(path, "estimator", content | {"class": where})
    np.testing.assert_array_equal(load(path).predict(X), estimator.predict(X))


@pytest.mark.parametrize(
    "name",
    ["os.system", "sktarget.linalg.RidgeFactor", "sktarget.absent.Thing", "sktarget.x"],
)
def test_file_cannot_name_other_classes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    X, y = class_data()
    save(fit_quietly(TargetSpaceClassifier(**SMALL), X, y), path)
    content = _archive.read(path, "estimator")
    _archive.write(path, "estimator", content | {"class": name})
    with pytest.raises(ValueError, match="does not fit version"):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"left_out": 3},
        {"left_out": [3]},
        {"class": None},
        {"parameters": []},
        {"state": None},
        {"state": {}},
        {"state": [1]},
        {"version": None, "class": "os.system"},
    ],
    ids=str,
)
def test_forged_files_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model"
    X, y = class_data()
    save(fit_quietly(TargetSpaceClassifier(**SMALL), X, y), path)
    content = _archive.read(path, "estimator")
    _archive.write(path, "estimator", content | change)
    with pytest.raises(ValueError, match=r"model'.*(is damaged, or no|does not fit)"):
        load(path)
    for name in change:
        del content[name]
    _archive.write(path, "estimator", content)
    with pytest.raises(ValueError, match=r"model' is damaged, or no.*KeyError"):
        load(path)


@for_both
@pytest.mark.parametrize("settings", [{}, {"warm_start": True}], ids=["", "resumable"])
def test_models_in_mapped_memory_are_saved(
    kind: type, settings: dict[str, Any], tmp_path: Path
) -> None:
    X, y = problem(kind)
    joblib.dump(fit_quietly(kind(**SMALL, **settings), X, y), tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    found = through_file(mapped, tmp_path)
    np.testing.assert_array_equal(found.predict(X), mapped.predict(X))


def test_state_cannot_replace_parameters(tmp_path: Path) -> None:
    path = tmp_path / "model"
    X, y = class_data()
    save(fit_quietly(TargetSpaceClassifier(**SMALL), X, y), path)
    content = _archive.read(path, "estimator")
    content["state"]["checkpoint"] = "elsewhere"
    _archive.write(path, "estimator", content)
    with pytest.raises(ValueError, match="its state holds parameters"):
        load(path, checkpoint=None)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    X, y = class_data()
    path = tmp_path / "model.npz"
    save(fit_quietly(TargetSpaceClassifier(**SMALL), X, y), path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(100):
        path.write_bytes(whole[: random.integers(len(whole))])
        with pytest.raises(ValueError, match=r"model.npz.*damaged"):
            load(path)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model.npz.*damaged"):
            load(path)
    path.write_bytes(whole)
    assert load(path).n_iter_ == 5


# --- versions -------------------------------------------------------------------------


@for_both
def test_other_versions_warn(
    kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL), X, y)
    with monkeypatch.context() as patch:
        patch.setattr(sktarget.estimators._fitted, "__version__", "0.0.7")
        pickled = pickle.dumps(estimator)
        save(estimator, tmp_path / "model")
    match = rf"{kind.__name__} was stored by sktarget 0\.0\.7 .*{sktarget.__version__}"
    with pytest.warns(UserWarning, match=match):
        found = pickle.loads(pickled)
    np.testing.assert_array_equal(found.predict(X), estimator.predict(X))
    with pytest.warns(UserWarning, match=match):
        found = load(tmp_path / "model")
    np.testing.assert_array_equal(found.predict(X), estimator.predict(X))
    # Stored again, it is of this version.
    assert vars(pickle.loads(pickle.dumps(found))).keys() == vars(estimator).keys()


# --- size, other formats, other processes ---------------------------------------------


@for_both
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_size_is_that_of_the_weights(kind: type, dtype: str, tmp_path: Path) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(
        kind(**(SMALL | {"hidden_layer_sizes": (100, 100)})), X.astype(dtype), y
    )
    estimator.predict(X)
    size = sum(w.nbytes for w in estimator.coefs_ + estimator.intercepts_)
    save(estimator, tmp_path / "model.npz")
    assert len(pickle.dumps(estimator)) < 1.2 * size
    assert (tmp_path / "model.npz").stat().st_size < 1.2 * size


@for_both
def test_no_target_is_carried(kind: type) -> None:
    X, y = problem(kind)
    y = y * np.pi if kind is TargetSpaceRegressor else np.arange(90) // 2 * 7919
    estimator = fit_quietly(kind(**SMALL), X, y)
    assert y[:8].tobytes() not in pickle.dumps(estimator)
    # Nor as indices, nor in units: nothing has an entry for every row.
    assert len(y) not in axes_of(estimator)
    goes_on = fit_quietly(kind(**SMALL, warm_start=True), X, y)
    assert len(y) in axes_of(goes_on)


def axes_of(value: Any) -> set[int]:
    """Collect the lengths of all axes of arrays in the state of an estimator."""
    if isinstance(value, BaseEstimator):
        value = value.__getstate__()
    if isinstance(value, np.ndarray):
        return set(value.shape)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return set().union(*map(axes_of, value))
    return set()


@for_both
@pytest.mark.parametrize("warm_start", [False, True])
def test_skops_asks_to_trust_the_class_alone(kind: type, warm_start: bool) -> None:
    X, y = problem(kind)
    model = make_pipeline(StandardScaler(), kind(**SMALL, warm_start=warm_start))
    fit_quietly(model, X, y)
    data = skops.io.dumps(model)
    trusted = [f"{kind.__module__}.{kind.__name__}"]
    assert skops.io.get_untrusted_types(data=data) == trusted
    found = skops.io.loads(data, trusted=trusted)
    np.testing.assert_array_equal(found.predict(X), model.predict(X))
    assert_same_weights(fit_quietly(found, X, y)[-1], fit_quietly(model, X, y)[-1])


@pytest.mark.parametrize(
    "kind",
    [getattr(sktarget, name) for name in sktarget.__all__ if name[0] == "T"]
    + [getattr(sktarget.propagation, name) for name in sktarget.propagation.__all__],
)
def test_types_to_trust_are_documented(kind: Any) -> None:
    X, y = class_data()
    data = skops.io.dumps(fit_quietly(kind(max_iter=2, random_state=0), X, y))
    (trusted,) = skops.io.get_untrusted_types(data=data)
    assert trusted == f"{kind.__module__}.{kind.__name__}"
    package, module, name = trusted.rsplit(".", 2)
    text = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    assert f"`{package}." in text
    assert f"`{module}.{name}`" in text
    found = skops.io.loads(data, trusted=[trusted])
    assert not hasattr(found, "targets_")


@pytest.mark.parametrize("how", ["save", "skops"])
def test_loads_in_another_process(how: str, tmp_path: Path) -> None:
    kind = TargetSpaceClassifier
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL), X, y)
    path = tmp_path / "model"
    np.save(tmp_path / "X.npy", X)
    if how == "save":
        save(estimator, path)
        code = "from sktarget.persistence import load; model = load(sys.argv[1])"
    else:
        skops.io.dump(estimator, path)
        trusted = f"{kind.__module__}.{kind.__name__}"
        code = f"import skops.io; model = skops.io.load(sys.argv[1], {[trusted]})"
    code = (
        "import sys, numpy as np\n"
        "X = np.load(sys.argv[1].replace('model', 'X.npy'))\n"
        f"{code}\n"
        "np.save(sys.argv[1] + '.npy', model.predict(X))\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(path)]
    subprocess.run(command, cwd=ROOT, check=True)
    found = np.load(f"{path}.npy")
    np.testing.assert_array_equal(found, estimator.predict(X))


def test_other_estimators_of_a_pipeline_are_left_to_skops(tmp_path: Path) -> None:
    X, y = class_data()
    with pytest.raises(TypeError, match="skops or joblib"):
        save(LogisticRegression().fit(X, y), tmp_path / "model")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@for_both
def test_model_of_a_gpu_predicts_without_one(kind: type, tmp_path: Path) -> None:
    X, y = problem(kind)
    estimator = fit_quietly(kind(**SMALL, device="cuda:0", warm_start=True), X, y)
    save(estimator, tmp_path / "model")
    np.save(tmp_path / "X.npy", X)
    code = (
        "import os, sys; os.environ['CUDA_VISIBLE_DEVICES'] = ''\n"
        "import numpy as np, torch; from sktarget.persistence import load\n"
        "assert not torch.cuda.is_available()\n"
        "model = load(sys.argv[1] + '/model')\n"
        "X = np.load(sys.argv[1] + '/X.npy')\n"
        "np.save(sys.argv[1] + '/found.npy', model.predict(X))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_array_equal(found, estimator.predict(X))


@pytest.mark.parametrize("sizes", [range(3, 5), pd.Series([3, 4])], ids=repr)
def test_what_may_be_given_as_an_array_is_kept_as_one(
    sizes: Any, tmp_path: Path
) -> None:
    X, y = class_data()
    given = pd.DataFrame(X[:50])
    estimator = TargetSpaceClassifier(sizes, fixed_batch=given, max_iter=2)
    fit_quietly(estimator, X, y)
    save(estimator, tmp_path / "model")
    again = load(tmp_path / "model")
    assert list(again.hidden_layer_sizes) == [3, 4]
    np.testing.assert_array_equal(again.fixed_batch, X[:50])
    assert (again.predict_proba(X) == estimator.predict_proba(X)).all()


def test_what_serves_fit_alone_is_left_out(tmp_path: Path) -> None:
    X, y = class_data()
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = TargetSpaceClassifier((4,), max_iter=3, random_state=0)
        estimator.set_fit_request(sample_weight=True)
        fit_quietly(estimator, X, y)
    save(estimator, tmp_path / "model")
    again = load(tmp_path / "model")
    assert (again.predict_proba(X) == estimator.predict_proba(X)).all()
    assert not hasattr(again, "_metadata_request")
