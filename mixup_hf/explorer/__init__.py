"""The page of `mixup-hf explore`: mix two texts, review generated rows, look at a map of them.

`session` holds what the page works on and `page` says what happens when; neither `sweep`, `review`,
`labelled_set` nor `projection` knows of a page. Gradio, of the extra `explore`, is imported by
`page` and `server` when a page is built.
"""

from __future__ import annotations
