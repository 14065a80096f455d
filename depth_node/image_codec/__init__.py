"""The door for pixels: message fields and bytes become RGB or metres, or are refused.

This and the rooms behind it are the only code that believes ``step``, ``encoding``,
``is_bigendian`` and the headers of compressed images; each is checked first, and what does not fit
raises :class:`depth_node.errors.ImageRejected` with one of :data:`IMAGE_REASONS`.
"""

from depth_node.image_codec.compressed import decode_compressed as decode_compressed
from depth_node.image_codec.compressed import encode_jpeg as encode_jpeg
from depth_node.image_codec.compressed import encode_png as encode_png
from depth_node.image_codec.compressed_depth import (
    decode_compressed_depth as decode_compressed_depth,
)
from depth_node.image_codec.compressed_depth import (
    encode_compressed_depth as encode_compressed_depth,
)
from depth_node.image_codec.decoding import decode_depth_image as decode_depth_image
from depth_node.image_codec.decoding import decode_image as decode_image
from depth_node.image_codec.layout import IMAGE_COMPRESSED as IMAGE_COMPRESSED
from depth_node.image_codec.layout import IMAGE_DATA_LENGTH as IMAGE_DATA_LENGTH
from depth_node.image_codec.layout import IMAGE_ENCODING as IMAGE_ENCODING
from depth_node.image_codec.layout import IMAGE_ENDIANNESS as IMAGE_ENDIANNESS
from depth_node.image_codec.layout import IMAGE_REASONS as IMAGE_REASONS
from depth_node.image_codec.layout import IMAGE_SIZE as IMAGE_SIZE
from depth_node.image_codec.layout import IMAGE_STEP as IMAGE_STEP
from depth_node.image_codec.layout import IMAGE_TOO_LARGE as IMAGE_TOO_LARGE
from depth_node.image_codec.layout import MAX_PIXELS as MAX_PIXELS
from depth_node.image_codec.layout import check_raw as check_raw
from depth_node.image_codec.raw import decode_depth as decode_depth
from depth_node.image_codec.raw import decode_raw as decode_raw
