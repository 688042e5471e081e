"""BERT as Chinese-CLIP uses it: a bidirectional text tower, one vector per token.

Names are those of the original code and its weights. Against CLIP's own text tower: attention sees
both directions, the norm comes after each residual sum, and GELU is exact.

Source: BERT, arXiv:1810.04805, section 3.

Letters in shape comments: B batch, L tokens, C width, H heads.
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from cliplab.models.layers import attend

NORM_EPS = 1e-12  # with torch's default of 1e-5 the small embeddings come out visibly different


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT; the vocabulary's first entry is the padding."""

    vocab_size: int
    width: int  # C
    layers: int
    heads: int  # a divisor of the width
    hidden_width: int  # inside a layer's MLP, usually 4 C
    positions: int  # longest text, in tokens
    segments: int = 2  # sentences per text that the weights know of; CLIP uses the first
    hidden_dropout: float = 0.1  # probability
    attention_dropout: float = 0.1  # probability
    init_std: float = 0.02  # of new weights


class BertEmbeddings(nn.Module):
    """Word + position + segment embedding, normalised: ids (B, L) -> (B, L, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.width
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=0)
        self.position_embeddings = nn.Embedding(config.positions, width)
        self.token_type_embeddings = nn.Embedding(config.segments, width)
        self.LayerNorm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, C). One sentence at a time, so every token is of segment 0."""
        position = self.position_embeddings.weight[: token_ids.shape[1]]  # (L, C)
        segment = self.token_type_embeddings.weight[0]  # (C,)
        return self.dropout(self.LayerNorm(self.word_embeddings(token_ids) + position + segment))


class BertSelfAttention(nn.Module):
    """Multi-head attention over the real tokens."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads, self.dropout, width = config.heads, config.attention_dropout, config.width
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, tok: Tensor, text_mask: Tensor) -> Tensor:
        """(B, L, C), bool (B, L) with True = real -> (B, L, C)."""
        return attend(
            self.query(tok),
            self.key(tok),
            self.value(tok),
            self.heads,
            attn_mask=text_mask[:, None, None, :],  # padding is never looked at
            dropout_p=self.dropout if self.training else 0.0,
        )


class AddAndNorm(nn.Module):
    """Linear layer, added to the residual stream, then normalised (post-norm)."""

    def __init__(self, width_in: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, config.width)
        self.LayerNorm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """(B, L, C_in), (B, L, C) -> (B, L, C)."""
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class BertAttention(nn.Module):
    """Self-attention and its residual sum, (B, L, C) -> (B, L, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = AddAndNorm(config.width, config)

    def forward(self, tok: Tensor, text_mask: Tensor) -> Tensor:
        """(B, L, C), bool (B, L) -> (B, L, C)."""
        return self.output(self.self(tok, text_mask), tok)


class BertLayer(nn.Module):
    """One transformer layer, (B, L, C) -> (B, L, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        dense = nn.Linear(config.width, config.hidden_width)
        self.intermediate = nn.Sequential(OrderedDict(dense=dense, gelu=nn.GELU()))
        self.output = AddAndNorm(config.hidden_width, config)

    def forward(self, tok: Tensor, text_mask: Tensor) -> Tensor:
        """(B, L, C), bool (B, L) -> (B, L, C)."""
        tok = self.attention(tok, text_mask)
        return self.output(self.intermediate(tok), tok)


class Bert(nn.Module):
    """Token ids to contextual token vectors, (B, L) -> (B, L, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        stack = [BertLayer(config) for _ in range(config.layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(stack)})
        # In every published file, and required by its strict loader, but CLIP reads [CLS] itself.
        dense = nn.Linear(config.width, config.width)
        self.pooler = nn.ModuleDict({"dense": dense}).requires_grad_(False)
        self._initialize(config.init_std)

    def _initialize(self, std: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, token_ids: Tensor, text_mask: Tensor) -> Tensor:
        """(B, L), bool (B, L) with True = real token -> (B, L, C)."""
        tok = self.embeddings(token_ids)
        for layer in self.encoder["layer"].children():
            tok = layer(tok, text_mask)
        return tok
