"""Offers of models and questions to the simulator, with a service that does as it is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wm_mpc.msg import Plan
from wm_mpc.nodes.trainer import offers, rollouts
from wm_mpc.nodes.trainer.offers import RETRY_S, Offer
from wm_mpc.nodes.trainer.rollouts import Rollouts


class FakeClient:
    """A service: keeps requests, and answers the last one when told to."""

    def __init__(self) -> None:
        self.ready = True
        self.asked: list[Any] = []
        self.pending: list[Any] = []

    def service_is_ready(self) -> bool:
        return self.ready

    def call_async(self, request: Any) -> Any:
        box: dict[str, Any] = {}
        future = SimpleNamespace(done=lambda: bool(box), result=lambda: box.get("answer"), box=box)
        self.asked.append(request)
        self.pending.append(future)
        return future

    def remove_pending_request(self, future: Any) -> None:
        self.pending.remove(future)

    def answer(self, **fields: Any) -> None:
        self.pending.pop().box["answer"] = SimpleNamespace(**fields)


class Desk:
    """An ``Offer`` and the controller's side of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.client = FakeClient()
        self.refused: list[str] = []
        self.told: list[str] = []
        self.offer = Offer(
            self.client,
            {"base"},
            lambda refused, reason: self.refused.append(refused),
            lambda what, reason: self.told.append(what),
            lambda: self.now,
        )

    @property
    def asked(self) -> list[str]:
        return [request.path for request in self.client.asked]

    def make(self, name: str) -> None:
        self.offer.make(name, f"/{name}")
        self.offer.advance()

    def say(self, success: bool, model_hash: str = "base") -> None:
        self.client.answer(success=success, message="words", model_hash=model_hash)
        self.offer.advance()

    def accept(self, name: str) -> None:
        self.make(name)
        self.say(success=True)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.offer.advance()


def test_an_offer_waits_for_the_controller_and_only_the_newest_is_made() -> None:
    desk = Desk()
    desk.client.ready = False
    desk.make("a")
    desk.make("b")
    desk.client.ready = True
    desk.offer.advance()
    assert desk.asked == []
    desk.pass_time(RETRY_S)
    assert desk.asked == ["/b"]
    desk.make("c")
    assert desk.asked == ["/b"], "one at a time"
    desk.say(success=True)
    desk.offer.advance()
    assert desk.asked == ["/b", "/c"] and desk.told == ["accepted"]


def test_refusal_and_rollback_reach_the_training_process() -> None:
    desk = Desk()
    desk.offer.seen("base", 1)
    desk.make("a")
    desk.say(success=False)
    assert desk.refused == ["a"]
    desk.accept("b")
    desk.offer.seen("base", 5)
    assert desk.refused == ["a"], "it has not driven yet"
    desk.offer.seen("b", 6)
    desk.offer.seen("base", 7)
    assert desk.refused == ["a", "b"] and desk.told == ["rejected", "accepted", "rejected"]
    desk.offer.seen("base", 8)
    assert desk.refused == ["a", "b"]


def test_a_controller_that_begins_anew_is_offered_the_model_again() -> None:
    desk = Desk()
    desk.accept("a")
    desk.offer.seen("a", 50)
    desk.offer.seen("base", 3)
    desk.offer.advance()
    assert desk.asked == ["/a", "/a"] and desk.refused == []


@pytest.mark.parametrize(("before", "after"), [(50, 1), (2, 3)])
def test_a_controller_that_told_of_no_model_meanwhile_begins_anew(before: int, after: int) -> None:
    desk = Desk()
    desk.accept("a")
    desk.offer.seen("a", before)
    for _ in range(3):
        desk.offer.seen("", 0)
    desk.offer.seen("base", after)
    desk.offer.seen("base", after + 1)
    desk.offer.advance()
    assert desk.asked == ["/a", "/a"] and desk.refused == []


def test_a_pause_of_the_controller_hides_no_rollback_after_it() -> None:
    desk = Desk()
    desk.accept("a")
    desk.offer.seen("a", 50)
    desk.offer.seen("", 0)
    desk.offer.seen("a", 1)
    desk.offer.seen("base", 2)
    assert desk.refused == ["a"]


def test_a_newer_model_that_waits_is_not_replaced_by_one_to_be_offered_again() -> None:
    desk = Desk()
    desk.accept("a")
    desk.offer.seen("a", 50)
    desk.client.ready = False
    desk.make("b")
    desk.offer.seen("base", 1)
    desk.client.ready = True
    desk.pass_time(RETRY_S)
    assert desk.asked == ["/a", "/b"]


def test_a_model_that_runs_already_is_not_offered() -> None:
    desk = Desk()
    desk.offer.make("a", "/a")
    desk.offer.seen("a", 1)
    desk.offer.advance()
    assert desk.asked == []
    desk.offer.seen("base", 2)
    assert desk.refused == ["a"]


# ---- answers that never come -------------------------------------------------------------------


def test_an_offer_without_an_answer_is_made_again() -> None:
    desk = Desk()
    desk.make("a")
    desk.pass_time(offers.PATIENCE_S - 1.0)
    assert desk.asked == ["/a"] and desk.told == []
    desk.pass_time(1.0)
    assert desk.told == ["postponed"] and desk.client.pending == [], "forgotten by the client"
    desk.pass_time(RETRY_S)
    assert desk.asked == ["/a", "/a"] and desk.refused == []
    desk.say(success=True)
    assert desk.told == ["postponed", "accepted"]


def test_a_restart_ends_the_wait_for_an_answer() -> None:
    desk = Desk()
    desk.offer.seen("base", 40)
    desk.make("a")
    desk.offer.seen("base", 41)
    desk.offer.advance()
    assert desk.asked == ["/a"]
    desk.offer.seen("base", 1)
    assert desk.client.pending == []
    desk.pass_time(RETRY_S)
    assert desk.asked == ["/a", "/a"]


def test_a_newer_model_is_offered_in_place_of_one_without_an_answer() -> None:
    desk = Desk()
    desk.make("a")
    desk.make("b")
    desk.pass_time(offers.PATIENCE_S)
    desk.pass_time(RETRY_S)
    assert desk.asked == ["/a", "/b"]


def test_a_model_whose_answer_was_lost_but_which_drives_is_accepted() -> None:
    desk = Desk()
    desk.accept("a")
    desk.offer.seen("a", 5)
    desk.make("b")
    desk.pass_time(offers.PATIENCE_S)
    desk.offer.seen("b", 600)
    desk.pass_time(RETRY_S)
    assert desk.asked == ["/a", "/b"] and desk.refused == [], "neither taken back nor asked again"
    desk.offer.seen("a", 601)
    assert desk.refused == ["b"]


# ---- not now, and somebody else's choice -------------------------------------------------------


def test_a_controller_without_a_model_refuses_nothing() -> None:
    desk = Desk()
    desk.make("a")
    desk.say(success=False, model_hash="")
    assert desk.refused == [] and desk.told == ["postponed"]
    desk.pass_time(offers.PATIENCE_S)
    assert desk.asked == ["/a", "/a"]
    desk.say(success=False)
    assert desk.refused == ["a"], "now there was one to compare it with"


def test_a_model_that_is_only_prepared_is_accepted_and_drives_later() -> None:
    desk = Desk()
    desk.offer.seen("", 0)
    desk.make("a")
    desk.say(success=True, model_hash="")
    for _ in range(3):
        desk.offer.seen("", 0)
    assert desk.told == ["accepted"] and desk.refused == []
    desk.offer.seen("a", 1)
    desk.offer.seen("base", 2)
    assert desk.refused == ["a"], "it drove, then it was taken back"


def test_a_model_that_somebody_chose_pauses_the_offers_and_takes_nothing_back() -> None:
    desk = Desk()
    desk.accept("a")
    desk.offer.seen("a", 5)
    for ticks in (6, 7):
        desk.offer.seen("chosen", ticks)
    desk.make("b")
    desk.pass_time(10 * RETRY_S)
    assert desk.refused == [] and desk.asked == ["/a"]
    assert desk.told == ["accepted", "paused"] and "model chosen runs" in desk.offer.paused
    desk.offer.seen("", 0)
    desk.offer.advance()
    assert desk.offer.paused, "still theirs while it does not tick"
    desk.offer.seen("base", 8)
    desk.offer.advance()
    assert desk.refused == [], "it was replaced by somebody's choice, not by base"
    assert desk.told[-1] == "resumed" and not desk.offer.paused
    assert desk.asked == ["/a", "/b"]


def test_after_somebodys_choice_the_accepted_model_is_offered_again() -> None:
    desk = Desk()
    desk.accept("a")
    desk.offer.seen("a", 5)
    desk.offer.seen("chosen", 6)
    desk.offer.seen("base", 7)
    desk.offer.advance()
    assert desk.asked == ["/a", "/a"] and desk.refused == []


# ---- questions to the simulator ----------------------------------------------------------------


class Inquiry:
    """``Rollouts`` and the simulator's side of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.client = FakeClient()
        self.complaints: list[str] = []
        self.rollouts = Rollouts(self.client, 5, self.complaints.append, lambda: self.now)

    def ask(self, seconds: float = 0.0) -> int:
        """Ask about a new plan after some time; returns how many questions were sent so far."""
        self.now += seconds
        self.rollouts.heard(Plan(actions=[0.5, 0.25], action_dim=2))
        self.rollouts.ask()
        return len(self.client.asked)


def test_one_question_at_a_time_and_each_plan_once() -> None:
    inquiry = Inquiry()
    assert inquiry.ask() == 1 and inquiry.ask() == 1
    request = inquiry.client.asked[0]
    assert (list(request.actions), request.action_dim) == ([0.5, 0.25], 2)
    assert request.frame_stride == 5
    inquiry.client.answer(success=True, message="")
    assert inquiry.ask() == 2 and inquiry.complaints == []
    inquiry.client.answer(success=False, message="actions: nan")
    inquiry.rollouts.ask()
    inquiry.rollouts.ask()
    assert inquiry.complaints == ["actions: nan"]
    assert len(inquiry.client.asked) == 2, "no plan twice"


def test_a_question_without_an_answer_does_not_end_the_asking() -> None:
    inquiry = Inquiry()
    assert inquiry.ask() == 1
    assert inquiry.ask(rollouts.PATIENCE_S - 1.0) == 1
    assert inquiry.ask(1.0) == 2
    assert len(inquiry.client.pending) == 1, "the first one is forgotten by the client"
    assert inquiry.complaints == ["no answer within 10 s; asked again"]
