"""scikit-learn's own suite."""

import os
from typing import Any

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktarget import (
    TargetSpaceClassifier,
    TargetSpaceSequenceClassifier,
    TargetSpaceSequenceRegressor,
)
from sktarget.propagation import (
    DifferenceTargetPropagationClassifier,
    DifferenceTargetPropagationRegressor,
    RegularizedInversionClassifier,
    RegularizedInversionRegressor,
    RegularizedInversionSequenceClassifier,
    RegularizedInversionSequenceRegressor,
)
from tests.estimators.support import ESTIMATORS, for_both

# Name of a check -> reason, for each class. Empty, and to remain so: a check that
# fails is a fault of the estimator.
EXPECTED_FAILED_CHECKS: dict[type, dict[str, str]] = {
    **{kind: {} for kind in ESTIMATORS},
    TargetSpaceSequenceClassifier: {},
    TargetSpaceSequenceRegressor: {},
    DifferenceTargetPropagationClassifier: {},
    DifferenceTargetPropagationRegressor: {},
    RegularizedInversionClassifier: {},
    RegularizedInversionRegressor: {},
    RegularizedInversionSequenceClassifier: {},
    RegularizedInversionSequenceRegressor: {},
}


def expected_failed_checks(estimator: Any) -> dict[str, str]:
    return EXPECTED_FAILED_CHECKS[type(estimator)]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:th(e first|is) call of partial_fit")
@parametrize_with_checks(
    [kind() for kind in EXPECTED_FAILED_CHECKS],
    expected_failed_checks=expected_failed_checks,
)
def test_scikit_learn(estimator: Any, check: Any) -> None:
    # The suite sets this variable off itself only with SciPy's array API enabled.
    if "array_api" in str(check) and "SCIPY_ARRAY_API" not in os.environ:
        pytest.skip("needs SCIPY_ARRAY_API=1")
    check(estimator)


@for_both
@pytest.mark.parametrize(
    "check",
    [
        "check_estimators_dtypes",
        "check_estimators_overwrite_params",
        "check_dict_unchanged",
        "check_fit_idempotent",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_sample_weight_equivalence_on_dense_data",
        "check_readonly_memmap_input",
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learn_on_the_control(kind: type, check: str) -> None:
    estimator = kind((8,), parameterization="weights", max_iter=20)
    getattr(estimator_checks, check)(kind.__name__, estimator)


@for_both
def test_tags_tell_the_truth(kind: type) -> None:
    tags = kind().__sklearn_tags__()
    assert not tags.non_deterministic
    if kind is TargetSpaceClassifier:
        assert not tags.classifier_tags.poor_score
        assert tags.classifier_tags.multi_label
    else:
        assert not tags.regressor_tags.poor_score
        assert tags.target_tags.multi_output


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "settings", [{"cell": "lstm"}, {"parameterization": "weights"}]
)
def test_scikit_learn_on_other_sequence_networks(settings: dict[str, Any]) -> None:
    for check in (
        "check_estimators_dtypes",
        "check_fit_idempotent",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_sample_weight_equivalence_on_dense_data",
        "check_readonly_memmap_input",
    ):
        estimator = TargetSpaceSequenceClassifier(
            recurrent_layer_sizes=(8,), max_iter=20, **settings
        )
        getattr(estimator_checks, check)("TargetSpaceSequenceClassifier", estimator)


def test_sequences_have_two_axes_or_three() -> None:
    tags = TargetSpaceSequenceClassifier().__sklearn_tags__()
    assert tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert not tags.non_deterministic
    assert not tags.classifier_tags.poor_score
