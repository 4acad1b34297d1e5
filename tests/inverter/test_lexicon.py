from __future__ import annotations

import pytest
import torch
from tiny import make_inverter, make_llm, make_rows, with_random_lora, word_tokenizer
from torch import Tensor

from mixup_hf.inverter.batches import WordBatches
from mixup_hf.inverter.lexicon import HintTokens, Lexicon
from mixup_hf.inverter.objective import LexiconModel
from mixup_hf.inverter.prompt import SoftPrompt

WORDS = torch.tensor([7, 9, 11, 20, 31])
COUNTS = torch.tensor([50, 3, 40, 2, 5])


def make_lexicon(common: int = 2) -> Lexicon:
    torch.manual_seed(0)
    lexicon = Lexicon(8, num_words=5, width=12, rank=4)
    lexicon.set_words(WORDS, COUNTS, common)
    return lexicon


def embeddings(rows: int = 3) -> Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(1))


def test_log_probabilities_sum_to_one_and_start_near_the_frequencies() -> None:
    lexicon = make_lexicon()
    found = lexicon(embeddings()).exp()
    torch.testing.assert_close(found.sum(-1), torch.ones(3))
    torch.testing.assert_close(found, (COUNTS / 100).expand(3, -1), atol=0.02, rtol=0)


def test_only_the_direction_of_an_embedding_matters() -> None:
    lexicon = make_lexicon()
    torch.testing.assert_close(lexicon(embeddings()), lexicon(0.3 * embeddings()))


def test_common_words_are_never_hints_and_the_likeliest_comes_first() -> None:
    values, words = make_lexicon().best(embeddings(), 3)
    for row in words.tolist():
        assert sorted(row) == [1, 3, 4]  # all but the two most frequent, 0 and 2
    assert (values.diff(dim=-1) <= 0).all()


def test_naming_another_number_of_words_is_refused() -> None:
    with pytest.raises(ValueError, match="`token_ids` must name 5 words, but got 2"):
        make_lexicon().set_words(torch.tensor([1, 2]), torch.tensor([1, 1]), 0)


def test_fresh_hints_are_the_llms_own_embeddings() -> None:
    lexicon, table = make_lexicon(), torch.randn(5, 16)
    hints = HintTokens(lexicon, llm_dim=16, num_hints=2, embedding_rms=0.5)
    expected = table[lexicon.best(embeddings(), 2)[1]]
    torch.testing.assert_close(hints(embeddings(), table), expected)


def test_hints_learn_rank_and_sureness_but_not_the_lexicon() -> None:
    hints = HintTokens(make_lexicon(), llm_dim=16, num_hints=2, embedding_rms=0.5)
    hints(embeddings(), torch.randn(5, 16)).square().sum().backward()
    learned = {name for name, value in hints.named_parameters() if value.grad is not None}
    assert learned == {"confidence", "order"}


def test_a_prompt_is_text_hints_soft_tokens_text() -> None:
    inverter = make_inverter(
        num_hints=2, lexicon_words=5, lexicon_width=6, lexicon_rank=3, prompt_prefix="the film"
    )
    hints = inverter.aligner.hints
    assert hints is not None
    hints.lexicon.set_words(WORDS, COUNTS, 1)
    prompt = SoftPrompt.build(inverter.aligner, inverter.llm, inverter.tokenizer)
    vectors = inverter.encode(["red market", "old song"])
    built = prompt(vectors)
    assert built.shape == (2, prompt.length, 32)
    assert prompt.length == 2 + 2 + 3
    table = inverter.llm.get_input_embeddings()
    words = WORDS[hints.lexicon.best(vectors, 2)[1]]
    torch.testing.assert_close(built[:, 2:4], table(words))
    torch.testing.assert_close(built[:, 4:], inverter.aligner.projector(vectors))
    assert len(inverter.invert(vectors)) == 2


def test_training_teaches_the_words_of_a_sentence() -> None:
    texts, _ = make_rows(40)
    vectors = torch.nn.functional.normalize(
        torch.randn(40, 8, generator=torch.Generator().manual_seed(2)), dim=-1
    )
    batches = WordBatches(
        texts,
        vectors.numpy(),
        word_tokenizer(classifier=False),
        num_words=30,
        batch_size=20,
        seed=0,
    )
    assert (batches.sentence_counts >= 3).all()
    lexicon = Lexicon(8, len(batches.token_ids), width=64, rank=16)
    lexicon.set_words(batches.token_ids, batches.sentence_counts, 0)
    model = LexiconModel(lexicon)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        for item in (batches[0], batches[1]):
            loss = model(**item)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss))
    assert losses[-1] < 0.75 * losses[0]


def test_the_loss_counts_every_sentence_the_same() -> None:
    model = LexiconModel(make_lexicon())
    logs = model.lexicon(embeddings(2))
    expected = -(logs[0, 1] + (logs[1, 0] + logs[1, 2] + logs[1, 4]) / 3) / 2
    found = model(embeddings(2), torch.tensor([0, 1, 1, 1]), torch.tensor([1, 0, 2, 4]))["loss"]
    torch.testing.assert_close(found, expected)


def test_words_of_a_mix_count_by_the_shares_of_their_sentences() -> None:
    model, given = LexiconModel(make_lexicon(), mix_share=0.7), embeddings(3)
    torch.manual_seed(4)
    first, second = torch.rand(2).tolist()  # the ratios of two mixes; the third row stays
    mixes = torch.stack(
        [
            first * given[0] + (1 - first) * given[1],
            second * given[1] + (1 - second) * given[0],
            given[2],
        ]
    )
    logs = model.lexicon(mixes)
    one = first * logs[0, 1] + (1 - first) * (logs[0, 0] + logs[0, 2]) / 2
    two = second * (logs[1, 0] + logs[1, 2]) / 2 + (1 - second) * logs[1, 1]
    expected = -(one + two + logs[2, 4]) / 3
    rows, words = torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 2, 4])
    torch.manual_seed(4)
    torch.testing.assert_close(model(given, rows, words)["loss"], expected)
    assert not torch.allclose(model.eval()(given, rows, words)["loss"], expected)


def test_words_of_few_sentences_are_left_out_and_given_words_are_kept() -> None:
    tokenizer = word_tokenizer(classifier=False)
    texts = ["red market", "red film", "red red song", "market"]
    vectors = torch.zeros(4, 8).numpy()
    batches = WordBatches(texts, vectors, tokenizer, num_words=10, seed=0)
    assert tokenizer.convert_ids_to_tokens(batches.token_ids.tolist()) == ["red"]
    given = torch.tensor(sorted(tokenizer.convert_tokens_to_ids(["film", "market"])))
    batches = WordBatches(texts, vectors, tokenizer, num_words=10, token_ids=given, seed=0)
    assert batches.token_ids.tolist() == given.tolist()
    assert batches.sentence_counts.sum() == 3
    with pytest.raises(ValueError, match="`sentences`"):
        WordBatches(["film", "song"], vectors, tokenizer, num_words=10, seed=0)


def test_an_llm_with_a_lora_reads_hints_from_its_own_table() -> None:
    """The words are looked up in the base model, however it is wrapped."""
    llm = make_llm()
    before = llm.get_input_embeddings()(WORDS)
    wrapped = with_random_lora(llm)
    torch.testing.assert_close(wrapped.get_base_model().get_input_embeddings()(WORDS), before)


def test_a_lexicon_of_too_few_rare_words_gives_finite_hints() -> None:
    lexicon = Lexicon(4, 6, 8, 4)
    lexicon.set_words(torch.arange(6), torch.tensor([9, 8, 7, 6, 5, 4]), num_common=4)
    values, words = lexicon.best(torch.randn(3, 4), 3)
    assert values.isfinite().all()
    assert {4, 5} <= set(words[0].tolist())
