from .embeddings import (
    CacheWarning as CacheWarning,
    Embedded as Embedded,
    EmbeddingCache as EmbeddingCache,
    embed_photos as embed_photos,
    picture_key as picture_key,
)
from .hub import (
    find_snapshot as find_snapshot,
    huggingface_cache as huggingface_cache,
    modelscope_cache as modelscope_cache,
    openai_cache as openai_cache,
    timeout_s as timeout_s,
)
from .loading import (
    LOADERS as LOADERS,
    load_encoder as load_encoder,
    read_modelscope as read_modelscope,
    read_openai as read_openai,
)
from .two_towers import (
    TEXT_BATCH as TEXT_BATCH,
    Encoder as Encoder,
    TwoTowers as TwoTowers,
    modelscope_preprocess as modelscope_preprocess,
    openai_preprocess as openai_preprocess,
)
