"""Batches larger than memory: towers go over them in chunks, twice, and the loss sees all rows."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def encode_in_chunks(encode: Callable[[Tensor], Tensor], inputs: Tensor, chunk: int) -> Tensor:
    """`encode(inputs)`, (N, ...) -> (N, D), with the activations of `chunk` rows at a time.

    Forward keeps the embeddings alone. When the loss of all N rows has sent back its gradient,
    every chunk is encoded again from the same random state, and takes its rows of the gradient:
    the gradient of the whole batch, which adding up the losses of small batches is not. It costs
    one forward pass more. That is cached-gradient accumulation, which `torch.utils.checkpoint`
    does when its unit is a chunk of the batch instead of a layer.

    Args:
        encode: a tower, or a method of a model.
        inputs: (N, ...) rows.
        chunk: rows at a time; the last chunk may have fewer.

    Raises:
        ValueError: a chunk of less than one row; or a batch norm in training, whose statistics
            would be of a chunk instead of the batch.

    Source: GradCache, arXiv:2101.06983, with its random states.
    """
    if chunk < 1:
        raise ValueError(f"chunk: got {chunk}; expected at least one row at a time")
    owner = getattr(encode, "__self__", encode)
    for name, module in owner.named_modules() if isinstance(owner, nn.Module) else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"encode: got a model with batch norm in training ({name}), which mixes the rows "
                "of a batch; expected rows that do not know one another: use a ViT, or .eval()"
            )
    parts = [checkpoint(encode, part, use_reentrant=False) for part in inputs.split(chunk)]
    return torch.cat(parts)
