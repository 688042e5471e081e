from .embeddings import (
    WORLD as WORLD,
    Embedded as Embedded,
    EmbeddingCache as EmbeddingCache,
    embed_photos as embed_photos,
    foreign as foreign,
    read_ahead as read_ahead,
    texture as texture,
)
from .hub import find_folder as find_folder
from .loading import (
    LOADERS as LOADERS,
    load_encoder as load_encoder,
    read_modelscope as read_modelscope,
    read_openai as read_openai,
)
from .two_towers import (
    Encoder as Encoder,
    openai_preprocess as openai_preprocess,
)
