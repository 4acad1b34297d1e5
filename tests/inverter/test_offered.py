"""Words offered in training: a sentence's own, and another's as distractors."""

from __future__ import annotations

import pytest
import torch
from tiny import make_inverter, word_tokenizer
from torch.nn import functional as F

from mixup_hf import Inverter
from mixup_hf.errors import InvalidInput
from mixup_hf.inverter.guidance import Forced, favour
from mixup_hf.inverter.objective import AlignmentModel
from mixup_hf.inverter.offered import OfferedWords
from mixup_hf.inverter.prompt import SoftPrompt

HINTED = {"num_hints": 2, "lexicon_words": 4, "lexicon_width": 6, "lexicon_rank": 3}


def ids_of(*texts: str) -> list[int]:
    return word_tokenizer(classifier=False).convert_tokens_to_ids(list(texts))


def make(**config: float) -> Inverter:
    """An inverter whose lexicon has "red" (common), "market", "film" and "old"; not "song"."""
    inverter = make_inverter(**(HINTED | config))
    assert inverter.aligner.hints is not None
    words = torch.tensor(ids_of("red", "market", "film", "old"))
    inverter.aligner.hints.lexicon.set_words(words, torch.tensor([50, 3, 40, 2]), 1)
    inverter.prompt = SoftPrompt.build(inverter.aligner, inverter.llm, inverter.tokenizer)
    return inverter


def offered_words(inverter: Inverter, share: float) -> OfferedWords:
    found = OfferedWords.of(inverter.aligner, inverter.llm, inverter.tokenizer, share)
    assert found is not None
    return found


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """ "red film song" and "old market", padded with "film", which is no word of it."""
    ids = torch.tensor([ids_of("red", "film", "song"), ids_of("old", "market", "film")])
    return ids, torch.tensor([[True] * 4, [True, True, True, False]])


def test_a_sentence_is_offered_its_own_words_and_another_sentences_by_one_minus_their_share() -> (
    None
):
    torch.manual_seed(0)
    offer = offered_words(make(), 1.0)(*batch())
    red, market, film, old = offer.preferred.T
    assert red.tolist() == [0, 0]  # too common to be a hint
    own, other = torch.stack([film[0], old[1]]), torch.stack([old[0], film[1]])
    torch.testing.assert_close(own + other, torch.full((2,), 9.0))
    assert (own >= 0.4 * 9).all()
    assert (own < 9).all()
    torch.testing.assert_close(market, old)
    song = offer.pieces(offer.others.shape[1])[:, ids_of("song")[0]]
    torch.testing.assert_close(song, film)
    assert offer.others.count_nonzero() == 2  # words of the lexicon are no pieces


def test_the_share_of_sentences_asked_for_is_offered_words() -> None:
    torch.manual_seed(0)
    ids, targets = (each.repeat(500, 1) for each in batch())
    offer = offered_words(make(), 0.3)(ids, targets)
    assert float(offer.preferred.any(1).float().mean()) == pytest.approx(0.3, abs=0.04)
    assert torch.equal(offer.preferred.any(1), offer.others.any(1))


def test_offered_words_are_in_the_hints_and_in_the_guidance_of_training_alone() -> None:
    inverter = make(guidance=0.5)
    ids, targets = batch()
    labels = F.pad(ids, (0, 1), value=5).masked_fill(~targets, -100)
    embeddings = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    given = {"guided": inverter.aligner, "offered": offered_words(inverter, 1.0)}
    model = AlignmentModel(inverter.prompt, inverter.llm, **given)
    plain = AlignmentModel(inverter.prompt, inverter.llm, guided=inverter.aligner)
    torch.manual_seed(0)
    offer = offered_words(inverter, 1.0)(ids, targets)
    torch.manual_seed(0)
    loss = model.train()(embeddings, ids, labels)["loss"]
    nats = favour(inverter.aligner, inverter.llm, embeddings, offer.preferred, offer.pieces)
    assert nats is not None
    prompts = inverter.prompt(embeddings, offer.preferred)
    inputs = torch.cat([prompts, inverter.llm.get_input_embeddings()(ids)], dim=1)
    logits = inverter.llm(inputs_embeds=inputs).logits[:, prompts.shape[1] - 1 :]
    logits = logits[targets] + Forced(nats, ids, targets)[: int(targets.sum())]
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels[targets]))
    evaluated = model.eval()(embeddings, ids, labels)["loss"]
    torch.testing.assert_close(evaluated, plain.eval()(embeddings, ids, labels)["loss"])
    assert not torch.allclose(evaluated, loss, atol=1e-3)


def test_without_hints_there_is_nothing_to_offer() -> None:
    inverter = make_inverter()
    given = inverter.aligner, inverter.llm, inverter.tokenizer
    assert OfferedWords.of(*given, 0.0) is None
    with pytest.raises(InvalidInput, match="offered_share.*without hints"):
        OfferedWords.of(*given, 0.5)
