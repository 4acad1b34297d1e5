"""The committee with the embedded models, on sentences whose topic is obvious."""

from __future__ import annotations

import pytest

from mixup_hf import Inverter
from mixup_hf.data.targets import read_targets
from mixup_hf.inverter.encoder import TunableEncoder
from mixup_hf.judging.labels import LabelInputs, fit_committee

SENTENCES = {
    "sport": [
        "the striker scored twice in the second half of the match",
        "she won the tennis final in straight sets",
        "the coach praised his players after the game",
        "a late goal sent the home team to the cup final",
        "the sprinter broke the national record over 100 metres",
        "fans cheered as the goalkeeper saved the penalty",
        "the club signed a new defender before the season",
        "rain stopped play on the third day of the test match",
    ],
    "business": [
        "shares fell after the bank reported lower profits",
        "the company will cut two hundred jobs to save costs",
        "oil prices rose as demand grew in Asia",
        "the retailer expects higher sales this quarter",
        "investors sold bonds when the central bank raised rates",
        "the airline agreed to buy its smaller rival",
        "exports grew faster than economists had predicted",
        "the firm's annual revenue passed one billion dollars",
    ],
    "film": [
        "the actress won an award for her role in the drama",
        "the director is filming a sequel to his comedy",
        "critics praised the soundtrack of the new movie",
        "the premiere of the thriller drew a crowd of fans",
        "the singer plays a detective in her first film",
        "the animated feature topped the box office again",
        "a documentary about jazz opens the festival",
        "the cast of the series returned for a final season",
    ],
}
UNSEEN = {
    "sport": ["the midfielder was injured in training", "they lost the basketball game by a point"],
    "business": ["the carmaker's profits doubled", "inflation slowed as fuel became cheaper"],
    "film": ["the movie stars two Oscar winners", "the screenplay is based on a novel"],
}


@pytest.mark.slow
def test_obvious_topics_are_told_apart_and_no_surer_than_right() -> None:
    inverter = Inverter.from_pretrained("embedded", device="cpu")
    names = list(SENTENCES)
    texts = [text for name in names for text in SENTENCES[name]]
    labels = [label for label, name in enumerate(names) for _ in SENTENCES[name]]
    inputs = LabelInputs(
        texts,
        inverter.encode(texts),
        read_targets(labels, None, names),
        inverter.encoder,
        label_names=names,
        llm=inverter,
        tunable_encoder=lambda: TunableEncoder(inverter.encoder),
    )
    members = ["encoder", "llm", "label_names", "setfit", "knn"]
    committee = fit_committee(inputs, members)
    assert all(accuracy > 0.4 for accuracy in committee.accuracies.values()), committee.describe()
    assert committee.accuracy > 0.8, committee.describe()
    mixed = inverter.encode(texts)
    sentences = inverter.invert((mixed + mixed.roll(8, 0)) / 2, seed=0, progress=False)
    found = committee.calibrate(sentences).label(sentences).labels
    assert found.max(1).values.mean() <= committee.accuracy
    unseen = committee.label([text for name in names for text in UNSEEN[name]]).labels
    right = unseen.argmax(1).tolist() == [0, 0, 1, 1, 2, 2]
    assert right, unseen
