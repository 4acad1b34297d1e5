"""SMOTE for texts, as a sampler of imbalanced-learn. The only module that imports it at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_target_type
from sklearn.utils import check_random_state

from mixup_hf import errors, runtime
from mixup_hf.config import MixupConfig
from mixup_hf.inverter.model import Inverter
from mixup_hf.training.inversed import InversedMixup
from mixup_hf.training.mix_settings import WITHIN_CLASSES
from mixup_hf.training.mixed_set import read_config
from mixup_hf.types import MixedExample

_SEEDS = 2**31 - 1
_FIXED = ("label_source", "sampling_strategy", "seed")


class TextSMOTE(BaseOverSampler):  # type: ignore[misc]
    """Oversampling of texts: sentences between two near texts of a class (SMOTExT).

    As SMOTE does with numbers, it mixes a row with one of its nearest rows of the same class; the
    mix of their embeddings is decoded into a sentence. A new row has the class of its two parents.

    Example:
        texts, labels = TextSMOTE(random_state=0).fit_resample(frame["text"], frame["label"])

    Args:
        aligner: `"embedded"`, a folder, a Hub id, or an `Inverter` that is loaded already (which
            `sklearn.base.clone` would copy).
        sampling_strategy: As in imbalanced-learn: `"auto"`, `"minority"`, `"not minority"`,
            `"not majority"`, `"all"`, a ratio for two classes, or a mapping from classes to rows.
        random_state: Seed, generator, or None for another result each time.
        num_neighbors: Near rows of the class that a partner is drawn from.
        settings: Further fields of `MixupConfig`, such as `{"max_new_tokens": 60}`.

    Attributes:
        sampling_strategy_: Rows generated, by class.
        n_features_in_: 1: the column of texts.
        generated_: The generated rows as `MixedExample`, with their parents and λ, in the order in
            which they follow the given rows.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseOverSampler._parameter_constraints,
        "aligner": [str, Inverter],
        "num_neighbors": [int],
        "settings": [Mapping, None],
    }

    def __init__(
        self,
        *,
        aligner: str | Inverter = "embedded",
        sampling_strategy: Any = "auto",
        random_state: Any = None,
        num_neighbors: int = 5,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.aligner = aligner
        self.random_state = random_state
        self.num_neighbors = num_neighbors
        self.settings = settings

    def fit_resample(self, X: Any, y: Any, **params: Any) -> Any:
        """The given rows, followed by generated ones.

        Args:
            X: Texts (N): a list, an array, a pandas Series, or a table (N, 1) of one column.
            y: Their classes (N), names or numbers.
            **params: None are known.

        Returns:
            Texts and classes (N + generated), each of the type it was given in.

        Raises:
            InvalidType: A text is not a string.
            InvalidInput: An empty text, or several columns.
            ValueError: One class only, or a strategy that does not fit the classes.
        """
        return super().fit_resample(X, y, **params)

    def _check_X_y(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, bool]:
        y, binarize = check_target_type(y, indicate_one_vs_all=True)
        if len(np.unique(y)) < 2:
            raise errors.bad("y", "have more than one class", sorted({*y.tolist()}))
        texts = np.asarray(X, dtype=object)
        if texts.ndim > 2 or (texts.ndim == 2 and texts.shape[1] != 1):
            raise errors.bad(
                "X", "be one column of texts", f"shape {texts.shape}", "Select the text column."
            )
        errors.texts("X", texts.ravel().tolist())
        if len(texts) != len(y):
            raise errors.bad("y", f"have one class for each of {len(texts)} texts", len(y))
        self._check_feature_names(X)
        self.n_features_in_ = 1
        return texts, y, binarize

    def _check_feature_names(self, X: Any) -> None:
        columns = getattr(X, "columns", None)
        if columns is not None and all(isinstance(each, str) for each in columns):
            self.feature_names_in_ = np.asarray(columns, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _fit_resample(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        classes, indices = np.unique(y, return_inverse=True)
        place = {name: at for at, name in enumerate(classes.tolist())}
        wanted = {place[_plain(name)]: int(count) for name, count in self._counts()}
        self.generated_: list[MixedExample] = []
        if not wanted:
            return X, y
        rows = Counter(indices.tolist())
        mixup = self._mixup(
            X.ravel().tolist(), indices.tolist(), {at: rows[at] + wanted[at] for at in wanted}
        )
        mixup.check_readability()
        self.generated_ = mixup.generate(sum(wanted.values()))
        copies = sum(row.is_copy for row in self.generated_)
        if copies:
            runtime.warn(
                f"{copies} of {len(self.generated_)} new rows are copies of rows you passed "
                "in, because every sentence generated for them was rejected. "
                "`settings={'intrusion': 'off'}` keeps sentences unchecked."
            )
        texts = np.array([row.text for row in self.generated_], dtype=object)
        added = indices[[row.parents[0] for row in self.generated_]]
        return (
            np.concatenate([X, texts.reshape(-1, *X.shape[1:])]),
            np.concatenate([y, classes[added]]),
        )

    def _counts(self) -> list[tuple[Any, int]]:
        return [(name, count) for name, count in self.sampling_strategy_.items() if count > 0]

    def _mixup(self, texts: list[str], labels: list[int], counts: dict[int, int]) -> InversedMixup:
        settings = dict(self.settings or {})
        for name in _FIXED:
            if name in settings:
                raise errors.bad(
                    "settings", f"leave out {name!r}", settings, "TextSMOTE decides it."
                )
        settings = {"method": "smotext", "num_neighbors": self.num_neighbors} | settings
        settings |= {"label_source": "parents", "sampling_strategy": counts}
        settings["seed"] = int(check_random_state(self.random_state).randint(_SEEDS))
        known: dict[str, Any] = {"num_labels": max(labels) + 1}
        if isinstance(self.aligner, Inverter):
            config = _within_classes(read_config(None, settings))
            return InversedMixup(self.aligner, texts, labels, config=config, **known)
        config = _within_classes(read_config(None, settings | {"aligner": self.aligner}))
        return InversedMixup.from_pretrained(texts=texts, labels=labels, config=config, **known)

    def __sklearn_tags__(self) -> Any:
        """Texts, in one dimension or a table of one column."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.sparse = False
        tags.input_tags.string = True
        return tags

    def _more_tags(self) -> dict[str, Any]:
        """The same for versions before scikit-learn 1.6."""
        return {"X_types": ["1darray", "string", "dataframe"]}


def _within_classes(config: MixupConfig) -> MixupConfig:
    """The config; parents of different classes are refused, as a new row has its parents' class."""
    if config.mixing.pairing not in WITHIN_CLASSES:
        rule = f"mix within classes ({', '.join(WITHIN_CLASSES)})"
        raise errors.bad("pairing", rule, config.mixing.pairing, "Leave it out of `settings`.")
    if config.intrusion == "local":
        rule = "not be 'local', which mixes with rows of other classes"
        raise errors.bad("intrusion", rule, "local", "Leave it out of `settings`.")
    return config


def _plain(name: Any) -> Any:
    """A class as Python's own type, as `tolist` gives it."""
    return name.item() if isinstance(name, np.generic) else name
