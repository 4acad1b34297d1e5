"""Alignment losses: L_GEN for the projector and LoRA, a bag-of-words loss for the lexicon."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixup_hf import errors
from mixup_hf.inverter.aligner import Aligner
from mixup_hf.inverter.batches import IGNORED
from mixup_hf.inverter.guidance import Forced, favour
from mixup_hf.inverter.lexicon import Lexicon
from mixup_hf.inverter.offered import Offer, OfferedWords
from mixup_hf.inverter.prompt import SoftPrompt

_CHUNK = 512  # number of target positions whose logits are in memory at once


class AlignmentModel(nn.Module):
    """Projector and LLM as one trainable module.

    `L_GEN(x; phi) = -sum_t log P(x_t | T(A_phi(h)), x_<t)` (arXiv 2601.21543, stage 1), averaged
    over tokens. Its `state_dict` contains only trainable parameters, so checkpoints stay small and
    the frozen LLM is never saved.

    Args:
        prompt: Maps embeddings to prompt embeddings; contains the projector.
        llm: The causal LM, with or without a LoRA (peft).
        noise: Norm of the Gaussian noise added to an embedding during training, relative to the
            norm of the embedding.
        mix_share: Fraction of rows whose embedding is mixed during training with that of the
            nearest neighbor in the batch, at a ratio of 0.6 to 1; the target sentence is unchanged.
        guided: The aligner, if its guidance is part of the logits in training as in decoding.
        offered: In training, the words that some of the sentences are hinted by besides.

    Raises:
        ValueError: The LLM computes its logits in a way this loss does not support.
    """

    accepts_loss_kwargs = True  # tells the Trainer that `num_items_in_batch` is used

    def __init__(
        self,
        prompt: SoftPrompt,
        llm: Any,
        *,
        noise: float = 0.0,
        mix_share: float = 0.0,
        guided: Aligner | None = None,
        offered: OfferedWords | None = None,
    ) -> None:
        super().__init__()
        self.prompt = prompt
        self.llm = llm
        self.noise = noise
        self.mix_share = mix_share
        self._guided = guided
        self._offered = offered
        text_config = self.base.config.get_text_config()
        self.softcap: float | None = getattr(text_config, "final_logit_softcapping", None)
        self._check_head()

    @property
    def base(self) -> Any:
        """The causal LM inside the LoRA wrapper, with the LoRA layers injected."""
        return self.llm.get_base_model() if hasattr(self.llm, "peft_config") else self.llm

    def forward(
        self,
        embeddings: Tensor,
        input_ids: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss.

        Args:
            embeddings: (B, D).
            input_ids: (B, T), padded on the right, where causal attention never attends.
            labels: (B, T + 1), `IGNORED` at padding.
            num_items_in_batch: Target tokens in the whole optimizer step; None counts this batch's.

        Returns:
            `loss`, a scalar in nats per token.
        """
        if self.training:
            embeddings = self._perturb(embeddings)
        targets = labels != IGNORED
        offer = None
        if self.training and self._offered is not None:
            offer = self._offered(input_ids, targets)
        prompts = self.prompt(embeddings, None if offer is None else offer.preferred)
        sentence = self.base.get_input_embeddings()(input_ids)
        inputs = torch.cat([prompts.to(sentence.dtype), sentence], dim=1)
        states = self.base.get_decoder()(inputs_embeds=inputs, use_cache=False).last_hidden_state
        states = states[:, prompts.shape[1] - 1 :]
        head = self.base.get_output_embeddings().weight
        guidance = self._guidance(embeddings, input_ids, targets, offer)
        total: Tensor = _FrozenHeadLoss.apply(  # type: ignore[no-untyped-call]
            states[targets].to(head.dtype), head, labels[targets], self.softcap, guidance
        )
        count = targets.sum() if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / count}

    def _guidance(
        self, embeddings: Tensor, input_ids: Tensor, targets: Tensor, offer: Offer | None
    ) -> Forced | None:
        if self._guided is None:
            return None
        given = (None, None) if offer is None else (offer.preferred, offer.pieces)
        nats = favour(self._guided, self.base, embeddings, *given)
        return None if nats is None else Forced(nats, input_ids, targets)

    def _perturb(self, embeddings: Tensor) -> Tensor:
        if self.mix_share:
            alike = F.cosine_similarity(embeddings[:, None], embeddings[None], dim=-1)
            neighbours = embeddings[alike.fill_diagonal_(-2).argmax(-1)]
            lams = 0.6 + 0.4 * torch.rand(len(embeddings), 1, device=embeddings.device)
            chosen = torch.rand(len(embeddings), 1, device=embeddings.device) < self.mix_share
            mixes = lams * embeddings + (1 - lams) * neighbours
            embeddings = torch.where(chosen, mixes, embeddings)
        if self.noise:
            length = embeddings.norm(dim=-1, keepdim=True) / embeddings.shape[-1] ** 0.5
            embeddings = embeddings + self.noise * length * torch.randn_like(embeddings)
        return embeddings

    @torch.no_grad()
    def _check_head(self) -> None:
        """Compare once with the LLM's own logits, since some models scale or shift them."""
        head = self.base.get_output_embeddings()
        state = torch.randn(1, 1, head.weight.shape[1], generator=torch.Generator().manual_seed(0))
        inputs = state.to(head.weight) * self.prompt.projector.embedding_rms
        # As in training: a float32 LoRA on bf16 weights only runs under autocast.
        half = head.weight.dtype == torch.bfloat16
        with torch.autocast(head.weight.device.type, torch.bfloat16, half):
            last = self.base.get_decoder()(inputs_embeds=inputs, use_cache=False).last_hidden_state
            ours = _logits(last[0].to(head.weight.dtype), head.weight, self.softcap)
            theirs = self.base(inputs_embeds=inputs, use_cache=False).logits[0]
        if not torch.allclose(ours.float(), theirs.float(), rtol=0.02, atol=0.02):
            raise errors.InvalidInput(
                "`llm` must compute its logits as states @ head.T (with or without a soft cap), "
                f"but {type(self.base).__name__} computes them differently. Use a model of the "
                "Llama, Qwen, Mistral or Gemma families."
            )

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state of the trainable parameters."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        full = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        return {name: value for name, value in full.items() if name.removeprefix(prefix) in trained}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load the trainable parameters, all of them and nothing else; frozen ones are not saved.

        Raises:
            RuntimeError: A trainable parameter is missing, or a name is unknown.
        """
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        missing = sorted(set(result.missing_keys) & set(self.state_dict()))
        if missing or result.unexpected_keys:
            raise errors.InvalidState(
                f"The checkpoint does not match what this stage trains: {missing[:5]} are missing, "
                f"{result.unexpected_keys[:5]} are unknown. Resume with the same config, or start "
                "into another output_dir."
            )
        result.missing_keys.clear()
        return result


class LexiconModel(nn.Module):
    """A lexicon with its loss: a softmax over words against the words of the sentence.

    `-mean_{w in x} log P(w | h)`, averaged over sentences: every sentence has the same weight,
    regardless of its number of words. Words of a mix count by the shares of their sentences.

    Args:
        lexicon: What is trained.
        mix_share: Fraction of rows whose embedding is mixed in training with that of the next row,
            at a ratio of 0 to 1.
    """

    def __init__(self, lexicon: Lexicon, mix_share: float = 0.0) -> None:
        super().__init__()
        self.lexicon = lexicon
        self.mix_share = mix_share

    def forward(self, embeddings: Tensor, rows: Tensor, words: Tensor) -> dict[str, Tensor]:
        """Compute the loss.

        Args:
            embeddings: (B, D).
            rows: Sentence index of each word (W,).
            words: Words (W,), as indices into the lexicon.

        Returns:
            `loss`, a scalar in nats per word.
        """
        shares = 1 / torch.bincount(rows, minlength=len(embeddings))[rows]
        if self.training and self.mix_share:
            embeddings, rows, words, shares = self._mix(embeddings, rows, words, shares)
        found = self.lexicon(embeddings)[rows, words]
        return {"loss": -(found * shares).sum() / len(embeddings)}

    def _mix(
        self, embeddings: Tensor, rows: Tensor, words: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mix the first rows, each with the next; a word's share goes to both mixes it is in."""
        count = int(self.mix_share * len(embeddings))
        lams = torch.rand(count, device=embeddings.device)
        first, second = embeddings[:count], embeddings[:count].roll(-1, 0)
        mixes = lams[:, None] * first + (1 - lams[:, None]) * second
        inside = rows < count
        as_first, as_second = rows[inside], (rows[inside] - 1) % max(count, 1)
        kept = shares.masked_scatter(inside, shares[inside] * lams[as_first])
        given = shares[inside] * (1 - lams[as_second])
        return (
            torch.cat([mixes, embeddings[count:]]),
            torch.cat([rows, as_second]),
            torch.cat([words, words[inside]]),
            torch.cat([kept, given]),
        )


class _FrozenHeadLoss(torch.autograd.Function):
    """Summed cross entropy through a frozen output head, computing logits in chunks.

    The gradient with respect to the states is computed in the forward pass. With a vocabulary of
    50,000, the logits of a batch would be by far the largest tensor of the step.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        head: Tensor,
        targets: Tensor,
        softcap: float | None,
        guidance: Forced | None,
    ) -> Tensor:
        total = torch.zeros((), device=states.device)
        gradient = torch.empty_like(states)
        for start in range(0, len(states), _CHUNK):
            rows = slice(start, start + _CHUNK)
            logits = _logits(states[rows], head, softcap)
            guided = logits if guidance is None else logits + guidance[rows]
            probabilities = guided.log_softmax(-1)
            wanted = targets[rows, None]
            total -= probabilities.gather(1, wanted).sum()
            probabilities.exp_().scatter_add_(
                1, wanted, torch.full_like(wanted, -1.0, dtype=probabilities.dtype)
            )
            if softcap is not None:
                probabilities *= 1 - (logits / softcap).square()  # derivative of the cap
            gradient[rows] = probabilities.to(head.dtype) @ head
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None, None, None


def _logits(states: Tensor, head: Tensor, softcap: float | None) -> Tensor:
    logits = (states @ head.T).float()
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
