"""CLIP's text tower: prompts in, as texts or as token embeddings, unit features out.

Source:
    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
    ICML 2021, https://arxiv.org/abs/2103.00020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from iqa_core.clip.image_tower import of_length_one
from iqa_core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TextTower"]

_Clip = Any  # open_clip's CLIP, CustomTextCLIP and CoCa share no base that says what they have


class TextTower(nn.Module):
    """Prompts -> unit features, from text or from token embeddings.

    Args:
        clip: open_clip's model; its image tower is left alone.
        tokenizer: The tokenizer that belongs to it.
    """

    attn_mask: torch.Tensor

    def __init__(self, clip: _Clip, tokenizer: Any) -> None:  # noqa: ANN401 - they share no base
        super().__init__()
        # CLIP keeps the text tower's parts on itself, CustomTextCLIP in ``.text``.
        parts: _Clip = getattr(clip, "text", clip)
        self.tokenizer = tokenizer
        self.context_length: int = getattr(parts, "context_length", tokenizer.context_length)
        pool = getattr(parts, "text_pool_type", getattr(parts, "pool_type", None))
        self.eot_id: int | None = getattr(tokenizer, "eot_token_id", None)
        #: Whether the features of a prompt depend on nothing but its tokens up to end-of-text.
        self.takes_embeddings = (
            getattr(parts, "transformer", None) is not None
            and getattr(parts, "attn_mask", None) is not None
            and getattr(parts, "cls_emb", None) is None
            and pool == "argmax"
            and self.eot_id is not None
        )
        if self.takes_embeddings:
            self.token_embedding = parts.token_embedding
            self.positional_embedding = parts.positional_embedding
            self.transformer = parts.transformer
            self.ln_final = parts.ln_final
            self.text_projection = parts.text_projection
            self.register_buffer("attn_mask", parts.attn_mask, persistent=False)
        else:
            self._encode_tokens = clip.encode_text  # holds the image tower too
        self.eval().requires_grad_(requires_grad=False)

    def tokenize(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return the token ids, (N, context_length) int64, padded behind end-of-text.

        Raises:
            InputError: If a prompt does not fit; the tokenizer alone would cut it in silence.
        """
        if self.eot_id is not None:
            for prompt in prompts:
                needed = len(self.tokenizer.encode(prompt)) + 2  # start- and end-of-text
                if needed > self.context_length:
                    raise InputError(
                        f"prompt {prompt!r} has {needed} tokens, but the text tower takes at most "
                        f"{self.context_length}: shorten it"
                    )
        tokens: torch.Tensor = self.tokenizer(list(prompts), context_length=self.context_length)
        return tokens

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> torch.Tensor:
        """Encode prompts; the same as open_clip's ``encode_text`` to float precision.

        Args:
            prompts: N texts.

        Returns:
            (N, D) float32 features of length 1.

        Raises:
            InputError: If a prompt is too long for the tower.
        """
        tokens = self.tokenize(prompts)
        if not self.takes_embeddings:
            features: torch.Tensor = self._encode_tokens(tokens, normalize=True)
            return features.float()
        tokens = tokens.to(self.attn_mask.device)
        return self.encode_embeddings(self.token_embedding(tokens), self.end_of_text(tokens))

    def end_of_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the position of end-of-text in each row of (N, L) token ids, as (N,) int64."""
        return tokens.argmax(dim=-1)  # it has the highest id of the vocabulary

    def encode_embeddings(
        self, embeddings: torch.Tensor, end_of_text: torch.Tensor
    ) -> torch.Tensor:
        """Encode prompts that are given as token embeddings; gradients flow to the embeddings.

        Only the tokens up to the last end-of-text are run: the causal mask makes what follows
        irrelevant.

        Args:
            embeddings: (N, L, width) token embeddings without positions, L at most context_length.
            end_of_text: (N,) int64 position of end-of-text, where the feature is read.

        Returns:
            (N, D) float32 features of length 1; for the embeddings of plain prompts the same as
            :meth:`encode`.

        Raises:
            InputError: If this text tower is not of CLIP's causal kind, or L is too long.
        """
        if not self.takes_embeddings:
            raise InputError(
                "this model's text tower is not of CLIP's causal kind (SigLIP, Hugging Face and "
                "CoCa towers are not), so it can't take learned prompts: use another --model"
            )
        if embeddings.shape[1] > self.context_length:
            raise InputError(
                f"prompts of {embeddings.shape[1]} tokens are longer than the text tower's "
                f"{self.context_length}: use fewer context vectors or shorter base prompts"
            )
        length = int(end_of_text.max()) + 1
        x = embeddings[:, :length] + self.positional_embedding[:length]
        x = self.transformer(x, attn_mask=self.attn_mask[:length, :length])
        return self._project(x[torch.arange(len(x), device=x.device), end_of_text])

    def encode_tree(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        ends: torch.Tensor,
    ) -> torch.Tensor:
        """Encode prompts that are laid out as a :class:`iqa_core.prompts.prefix_tree.PrefixTree`.

        The same as :meth:`encode_embeddings` of the prompts one by one, to float precision.

        Args:
            embeddings: (T, width) embeddings of the nodes without positions, with gradients.
            positions: (T,) int64, below ``context_length``.
            mask: (T, T) float32, 0 where the row's node sees the column's and else -inf.
            ends: (N,) int64 nodes of end-of-text.

        Returns:
            (N, D) float32 features of length 1.
        """
        x = embeddings + self.positional_embedding[positions]
        x = self.transformer(x.unsqueeze(0), attn_mask=mask).squeeze(0)
        return self._project(x[ends])

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width) of end-of-text, as the last layer leaves it -> (N, D) unit features."""
        x = self.ln_final(x)
        if isinstance(self.text_projection, nn.Linear):
            x = self.text_projection(x)
        elif self.text_projection is not None:
            x = x @ self.text_projection
        return of_length_one(x.float())
