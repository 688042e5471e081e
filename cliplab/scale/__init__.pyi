from .caching import encode_in_chunks as encode_in_chunks
from .collection import (
    Collection as Collection,
    Item as Item,
    find as find,
    read_collection as read_collection,
)
from .collectives import counted_traffic as counted_traffic
from .data_parallel import over_ranks as over_ranks
from .embedding import (
    Done as Done,
    Engine as Engine,
    embed as embed,
    in_process as in_process,
)
from .launch import joined as joined, run_local as run_local
from .losses import (
    any_clip_loss as any_clip_loss,
    gathered_clip_loss as gathered_clip_loss,
    ring_clip_loss as ring_clip_loss,
    ring_siglip_loss as ring_siglip_loss,
)
from .on_ray import Ray as Ray
from .ranks import (
    by_the_first as by_the_first,
    first_goes_first as first_goes_first,
    is_first as is_first,
    meet as meet,
    own_share as own_share,
    place as place,
)
from .searching import (
    INDEX_FROM as INDEX_FROM,
    SAMPLE as SAMPLE,
    Hit as Hit,
    Index as Index,
    open_index as open_index,
    search as search,
)
from .store import (
    About as About,
    Embeddings as Embeddings,
    open_embeddings as open_embeddings,
)
