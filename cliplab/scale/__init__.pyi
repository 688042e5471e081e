from .collection import (
    Collection as Collection,
    Item as Item,
    find as find,
    read_collection as read_collection,
)
from .embedding import (
    BLOCK as BLOCK,
    Done as Done,
    Engine as Engine,
    embed as embed,
    in_process as in_process,
)
from .on_ray import Ray as Ray
from .ranks import is_first as is_first, own_share as own_share
from .searching import (
    INDEX_FROM as INDEX_FROM,
    SAMPLE as SAMPLE,
    Hit as Hit,
    Index as Index,
    open_index as open_index,
    search as search,
)
from .store import (
    DTYPES as DTYPES,
    About as About,
    Embeddings as Embeddings,
    open_embeddings as open_embeddings,
)
