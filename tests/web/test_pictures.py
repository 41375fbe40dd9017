"""Pictures are pure functions of what was read: what they draw, and the texts that say the same."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from orchestra import HistoryEvent
from orchestra.client.ribbon import Cell, Mark
from orchestra.schedules import SlotOutcome
from orchestra.web.dashboard.bars import NameBar, bars
from orchestra.web.dashboard.colours import COLOURS, colour_of, colours
from orchestra.web.dashboard.lanes import Lane, lanes
from orchestra.web.dashboard.ribbon import Bin, ribbon
from orchestra.web.dashboard.slots import strip
from orchestra.web.dashboard.timeline import spans_of, timeline
from orchestra.web.dashboard.wording import counted, duration, instant

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVIL = "<script>\"'&"


def alternative(picture):
    return re.search(r'aria-label="([^"]*)"', picture)[1]


def rects(picture):
    """Return the class, the place and the width of each rectangle."""
    found = re.findall(r'<rect class="([^"]*)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', picture)
    return [(kind, float(x), float(width)) for kind, x, width in found]


def cell(number, version="1.0.0", minutes=1, *marks):
    return Cell(number, number, version, "continued_as_new", timedelta(minutes=minutes), marks)


class TestColours:
    def test_a_version_has_the_same_colour_wherever_it_is_shown(self):
        assert colour_of("1.2.0") == colours(["0.9.0", "1.2.0"])["1.2.0"] == colour_of("1.2.0")
        assert colour_of("no version") == colour_of("no version")

    def test_versions_that_are_shown_together_differ(self):
        versions = [f"{major}.{minor}.0" for major in range(3) for minor in range(4)]
        assert len(set(colours(versions).values())) == COLOURS
        assert len(colours([*versions, "9.0.0-rc.1", "luck"])) == COLOURS + 2

    def test_neighbours_differ_without_any_help(self):
        found = {colour_of(version) for version in ("1.0.0", "1.1.0", "1.1.1", "1.2.0", "2.0.0")}
        assert len(found) == 5


class TestRibbon:
    def test_a_cell_is_as_high_as_its_lap_was_long(self):
        picture = ribbon([cell(1, minutes=1), cell(2, minutes=4)], colours(["1.0.0"]))
        heights = [
            float(height)
            for height in re.findall(r'class="v\d+ is-\w+".*?height="([\d.]+)"', picture)
        ]
        assert heights[0] < heights[1]
        assert "lap 2 on 1.0.0, continued_as_new, 4 min" in picture

    def test_marks_have_shapes_and_stand_in_the_text(self):
        cells = [cell(1), cell(2, "2.0.0", 1, Mark.UPGRADE, Mark.MIGRATION), cell(3, "2.0.0")]
        picture = ribbon(cells, colours(["1.0.0", "2.0.0"]), is_held=True)
        for mark in ("upgrade", "migration", "hold"):
            assert f'class="mark {mark}"' in picture
        assert alternative(picture) == (
            "laps 1 to 3, on 1.0.0, 2.0.0; upgrade at lap 2; migration at lap 2; lap 3 is held"
        )
        up, diamond = (
            float(re.search(rf'class="mark {mark}" d="M[\d.]+ ([\d.]+)', picture)[1])
            for mark in ("upgrade", "migration")
        )
        assert diamond - up > 7, "marks of one lap stand apart"

    def test_laps_that_an_operator_has_held_are_marked(self):
        picture = ribbon([cell(1), cell(2)], colours(["1.0.0"]), paused={1})
        assert picture.count('class="mark hold"') == 1
        assert alternative(picture) == "laps 1 to 2, on 1.0.0; held by an operator at lap 1"

    def test_older_laps_share_blocks(self):
        picture = ribbon([cell(201)], colours(["1.0.0"]), older=[Bin(1, 200, "1.0.0")])
        assert "laps 1 to 200, from 1.0.0 on" in picture
        assert alternative(picture) == "laps 201 to 201, on 1.0.0; laps 1 to 200 before that"

    def test_it_stays_small_however_many_laps_there_are(self):
        few = ribbon([cell(number) for number in range(1, 201)], colours(["1.0.0"]))
        assert float(re.search(r'width="(\d+)" height="\d+" aria', few)[1]) <= 1_200

    def test_no_laps_are_a_picture_too(self):
        assert alternative(ribbon([], {})) == "no laps"


class TestBars:
    def test_a_bar_is_as_long_as_a_name_has_instances(self):
        names = [NameBar("watch", {"1.0.0": 30, "2.0.0": 10}), NameBar("order", {"1.0.0": 20})]
        picture = bars(names, colours(["1.0.0", "2.0.0"]))
        (_, _, thirty), (_, _, ten), (_, _, twenty) = rects(picture)
        assert thirty + ten == pytest.approx(2 * twenty, abs=2)
        assert (
            alternative(picture)
            == "live instances: watch: 30 on 1.0.0, 10 on 2.0.0; order: 20 on 1.0.0"
        )

    def test_few_beside_a_million_are_visible(self):
        picture = bars(
            [NameBar("watch", {"1.0.0": 1_000_000, "2.0.0": 1})], colours(["1.0.0", "2.0.0"])
        )
        assert rects(picture)[1][2] >= 2

    def test_nothing_is_a_picture_too(self):
        assert "live instances: " in bars([], {})


def event(number, kind, minutes, **details):
    return HistoryEvent(number, kind, NOW + timedelta(minutes=minutes), details)


class TestTimeline:
    EVENTS = (
        event(1, "execution_started", 0),
        event(2, "activity_scheduled", 0, name="probe"),
        event(3, "activity_failed", 2, source=2, tries=3),
        event(4, "timer_created", 2),
        event(5, "event_awaited", 2, name="go"),
        event(6, "timer_fired", 600, source=4),
        event(7, "command_cancelled", 600, source=5),
        event(8, "activity_scheduled", 600, name="store"),
        event(9, "activity_completed", 601, source=8, attempt=1),
        event(10, "child_started", 601, name="ship"),
    )

    def test_spans_begin_and_end_with_their_events(self):
        spans = spans_of(self.EVENTS)
        assert [(one.kind, one.name, one.outcome, one.attempts) for one in spans] == [
            ("activity", "probe", "failed", 3),
            ("timer", "", "fired", 1),
            ("event", "go", "cancelled", 1),
            ("activity", "store", "completed", 1),
            ("child", "ship", "open", 1),
        ]

    def test_what_is_open_as_a_lap_ends_ends_with_it(self):
        done = (*self.EVENTS, event(11, "continued_as_new", 602))
        assert spans_of(done)[-1].end == NOW + timedelta(minutes=602)

    def test_attempts_under_way_are_told(self):
        (span,) = spans_of(self.EVENTS[:2], {"probe": 4})
        assert (span.attempts, span.end) == (4, None)

    def test_long_idle_times_are_folded(self):
        spans = spans_of(self.EVENTS[:9])
        picture = timeline(spans, NOW + timedelta(minutes=601))
        (fold,) = [one for one in rects(picture) if one[0] == "fold"]
        work = [one for one in rects(picture) if one[0].startswith("span-activity")]
        assert work[0][2] > 4 * fold[2], "two minutes of work are wider than ten hours without"
        assert "9 h 58 min without work, folded" in picture
        assert alternative(picture).startswith(
            "activity probe failed, 2 min, 3 attempts; timer fired"
        )

    def test_a_wait_alone_is_not_folded(self):
        picture = timeline(spans_of(self.EVENTS[3:4]), NOW + timedelta(hours=9))
        assert [kind for kind, _, _ in rects(picture)] == ["span-timer is-open"]

    def test_a_long_lap_draws_its_last_spans(self):
        many = [event(number, "timer_created", number) for number in range(1, 1_000)]
        assert len(rects(timeline(spans_of(many), NOW + timedelta(days=9)))) == 120

    def test_nothing_is_no_picture(self):
        assert timeline((), NOW) == ""


class TestLanes:
    def test_a_lane_begins_where_its_version_was_seen_first(self):
        shown = [
            Lane("watch", "1.0.0", "drained", 0, NOW - timedelta(days=4), NOW - timedelta(days=2)),
            Lane("watch", "2.0.0", "target", 7, NOW - timedelta(days=2), None),
        ]
        picture = lanes(shown, NOW, colours(["1.0.0", "2.0.0"]))
        (_, old, wide), (_, new, _) = rects(picture)
        assert old + wide == pytest.approx(new, abs=2)
        assert alternative(picture) == "watch 1.0.0 drained, 0 live; watch 2.0.0 target, 7 live"
        assert "is-target" in picture


class TestSlots:
    def test_the_past_stands_before_now_and_the_future_behind(self):
        last = [
            SlotOutcome(NOW - timedelta(hours=hours), outcome, "busy")
            for hours, outcome in ((1, "skipped_overlap"), (2, "fired"))
        ]
        picture = strip(last, [NOW + timedelta(hours=1)], NOW)
        kinds = [kind for kind, _, _ in rects(picture)]
        assert kinds == ["slot is-fired", "slot is-skipped_overlap", "slot is-next"]
        assert alternative(picture) == "last slots: 1 skipped_overlap, 1 fired; the next in 1 h"

    def test_a_schedule_without_slots_has_a_strip(self):
        assert alternative(strip([], [], NOW)) == "last slots: none yet; none follows"


def test_text_of_users_stays_text_in_each_picture():
    for picture in (
        bars([NameBar(EVIL, {EVIL: 1})], {EVIL: "v0"}),
        lanes([Lane(EVIL, EVIL, "target", 1, NOW, None)], NOW, {EVIL: "v0"}),
        ribbon([cell(1, EVIL)], {EVIL: "v0"}, link="/" + "x"),
        timeline(spans_of([event(1, "activity_scheduled", 0, name=EVIL)]), NOW),
        strip([SlotOutcome(NOW, "failed", EVIL)], [], NOW),
    ):
        assert "<script>" not in picture
        assert "&lt;script&gt;" in picture


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (timedelta(milliseconds=7), "7 ms"),
        (timedelta(seconds=2.54), "2.5 s"),
        (timedelta(seconds=42), "42 s"),
        (timedelta(seconds=90), "1 min 30 s"),
        (timedelta(minutes=42, seconds=5), "42 min"),
        (timedelta(hours=2, minutes=5), "2 h 5 min"),
        (timedelta(days=4, hours=3), "4 d 3 h"),
        (timedelta(days=400), "400 d"),
        (-timedelta(minutes=2), "2 min"),
    ],
)
def test_durations_are_written_in_their_two_largest_units(of, words):
    assert duration(of) == words


def test_instants_and_numbers_are_written_alike_everywhere():
    assert instant(NOW) == "2026-03-01 12:00:00Z"
    assert instant(None) == ""
    assert (counted(1, "lap"), counted(1_200, "lap")) == ("1 lap", "1,200 laps")
