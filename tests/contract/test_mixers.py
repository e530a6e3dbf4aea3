"""Every token mixer that is registered keeps what it declares."""

from __future__ import annotations

from tests.contract import mixer_streams
from tests.contract.mixers import MIXERS
from tests.contract.subjects import Promise, Subject, subjects

assert mixer_streams.LENGTH  # the module adds its promises
SUBJECTS = subjects("mixer")


@MIXERS.parametrize(SUBJECTS)
def test_mixer(promise: Promise, subject: Subject) -> None:
    promise.check(subject)


def test_every_promise_is_checked_on_some_mixer() -> None:
    assert {promise.check for promise, _ in MIXERS.pairs(SUBJECTS)} == {promise.check for promise in MIXERS}


STREAMING = {
    "check_any_split_gives_the_whole", "check_gradients_pass_through_a_stream", "check_gradients_may_come_and_go",
    "check_detach_cuts_gradients", "check_state_growth", "check_states_of_chosen_rows", "check_snapshots_come_back",
    "check_overflow_is_an_error", "check_streams_in_half_precision", "check_streams_in_autocast",
}  # fmt: skip
PACKING = {"check_packed_is_separate", "check_padding_changes_nothing", "check_no_gradient_from_padding"}
ROUNDING = {
    "check_half_precision", "check_autocast", "check_streams_in_half_precision", "check_streams_in_autocast",
}  # fmt: skip
RAGGED = {"check_ragged_streams_go_on", "check_padded_prompt_then_decoding"}


def left_out(subject: Subject) -> set[str]:
    """The checks that a mixer's declarations rule out, said once more and independently of the checks."""
    mixer, rank = subject.plain(), len(subject.grid)
    out = set()
    out |= {"check_causality"} if mixer.causal == "never" else set()
    out |= {"check_later_tokens_are_seen"} if mixer.causal == "always" else set()
    out |= {"check_what_streams_is_causal"} if mixer.streams == "no" else {"check_no_state_without_streams"}
    out |= STREAMING | RAGGED if rank != 1 or mixer.streams != "any" else set()
    out |= PACKING | RAGGED if rank != 1 or not mixer.packs else set()
    out |= {"check_batch"} if any(getattr(m, "looks_at_batch", False) for m in mixer.modules()) else set()
    out |= ROUNDING if mixer.surrogate else set()
    out |= {"check_other_sizes"} if mixer.fixed_grid else {"check_bound_to_one_grid"}
    out |= {"check_maps_row_by_row"} if rank != 1 or 2 in mixer.grids else set()
    out |= {"check_prefix_is_left_alone"} if rank != 2 or 1 in mixer.grids or mixer.sees_prefix else set()
    sees_prefix = 1 in mixer.grids or mixer.sees_prefix
    out |= {"check_prefix_is_mixed_in"} if rank != 2 or not sees_prefix or mixer.fixed_grid else set()
    out |= {"check_compiles"} if rank != min(mixer.grids) else set()
    out |= {"check_exports"} if rank != min(mixer.grids) or not mixer.exports else set()
    return out


def test_nothing_is_left_out_but_what_declarations_rule_out() -> None:
    everything, expected = {str(promise) for promise in MIXERS}, 0
    for subject in SUBJECTS:
        checked = {str(promise) for promise in MIXERS if promise.applies(subject)}
        assert everything - checked == left_out(subject), subject
        expected += len(everything) - len(left_out(subject))
    assert len(MIXERS.pairs(SUBJECTS)) == expected
