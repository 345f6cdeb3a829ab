"""Turn readings into one verdict: the state of one reading, the best of several windows, the majority of votes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.judging.calls import Call, Reading
from tasks.judging.config import JudgeConfig, Preference
from tasks.judging.pointwise import UNAVAILABLE

# A score for each preference. It gives an order, not a probability. It is not 0 or 1, where log-odds are infinite.
# Preferences that count as relevant are above 0.5, the others below.
_IF_RELEVANT: dict[Preference, float] = {"none": 0.05, "worse": 0.55, "equal": 0.65, "better": 0.95}
_IF_NOT: dict[Preference, float] = {"none": 0.05, "worse": 0.35, "equal": 0.45, "better": 0.48}


def score_of(config: JudgeConfig, reading: Reading) -> float | None:
    """Return the score of a reading: its own, or the score of its preference; None if there is neither."""
    if reading.failure or reading.preference is None:
        return reading.score
    relevant = reading.preference in config.relevant_preferences
    return (_IF_RELEVANT if relevant else _IF_NOT)[reading.preference]


def state_of(score: float | None, relevant_from: float, not_relevant_below: float) -> str:
    """Return the state of a score: `relevant`, `unsure`, `not_relevant`, or `unparsed` for None."""
    if score is None:
        return "unparsed"
    if score >= relevant_from:
        return "relevant"
    return "not_relevant" if score < not_relevant_below else "unsure"


def state_of_reading(config: JudgeConfig, reading: Reading) -> str:
    """Return the state of one reading. A preference that does not count as relevant is `unsure`, as in ARHN."""
    if reading.failure:
        return "unparsed"
    if reading.preference is None:
        return state_of(reading.score, config.relevant_from, config.not_relevant_below)
    if reading.preference in config.relevant_preferences:
        return "relevant"
    return "not_relevant" if reading.preference == "none" else "unsure"


@dataclass(frozen=True)
class Heard:
    """What the judge said about a passage: the reading of one window, the call, and the key of the window."""

    reading: Reading
    call: Call
    key: str


def best_of(config: JudgeConfig, windows: Sequence[Heard]) -> Heard:
    """Return what counts of all windows of a passage: the one with the highest score, the first one of equals.

    A window that could not be read counts unless another one is relevant: the answer may have stood there.
    """
    failed = [heard for heard in windows if heard.reading.failure]
    read = [heard for heard in windows if not heard.reading.failure]
    if read:
        best = max(read, key=lambda heard: (score_of(config, heard.reading) or 0.0, heard.reading.grade or 0.0))
        if not failed or state_of_reading(config, best.reading) == "relevant":
            return best
    return next((heard for heard in failed if heard.reading.failure == UNAVAILABLE), failed[0])


@dataclass
class Tally:
    """The votes on one passage: at most `of`, and fewer where the majority is settled earlier."""

    of: int
    states: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def add(self, config: JudgeConfig, heard: Heard) -> None:
        """Add one vote."""
        reading = heard.reading
        score = score_of(config, reading)
        if score is not None:
            self.scores.append(score)
        self.states.append(state_of_reading(config, reading))
        self.readings.append(reading)
        self.calls.append(heard.call)
        self.keys.append(heard.key)

    @property
    def is_settled(self) -> bool:
        """Tell whether one parsed state has more than half of `of` votes."""
        return any(count > self.of // 2 for count in self._counts().values())

    @property
    def state(self) -> str:
        """Return the majority of the parsed votes; `unsure` without a majority, `unparsed` without parsed votes."""
        counts = self._counts()
        if not counts:
            return "unparsed"
        state, most = max(counts.items(), key=lambda item: (item[1], item[0]))
        return state if 2 * most > sum(counts.values()) else "unsure"

    @property
    def score(self) -> float | None:
        """Return the mean score of the votes; None without scores."""
        return self._mean(self.scores)

    @property
    def grade(self) -> float | None:
        """Return the mean grade of the votes; None without grades."""
        return self._mean([r.grade for r in self.readings if not r.failure and r.grade is not None])

    @property
    def preference(self) -> str | None:
        """Return the most frequent preference; with a tie, the one closer to `none`."""
        counts = Counter(r.preference for r in self.readings if not r.failure and r.preference is not None)
        if not counts:
            return None
        return min(counts, key=lambda preference: (-counts[preference], _IF_NOT[preference]))

    @property
    def last(self) -> Call:
        """Return the last call about the passage."""
        return self.calls[-1]

    @property
    def decided_by(self) -> str:
        """Return the key of the window behind the verdict: of the first vote that says the same, or of the last one."""
        same = (key for key, state in zip(self.keys, self.states, strict=True) if state == self.state)
        return next(same, self.keys[-1])

    def _counts(self) -> Counter[str]:
        return Counter(state for state in self.states if state != "unparsed")

    @staticmethod
    def _mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None
