"""Pictures: file <-> tensor, the only place that knows Pillow, uint8, EXIF, ICC, alpha, 16 bit.

Hostile files end here: a file is usable, or `Refused` in one line that names it and the reason.
Whatever was done to its pixels is said in notes.
"""

from unitune.images.colour import from_srgb as from_srgb
from unitune.images.decode import FORMATS as FORMATS
from unitune.images.decode import Photograph as Photograph
from unitune.images.decode import photograph as photograph
from unitune.images.decode import read as read
from unitune.images.pixels import from_uint8 as from_uint8
from unitune.images.pixels import save_mask as save_mask
from unitune.images.pixels import save_png as save_png
from unitune.images.pixels import to_uint8 as to_uint8
from unitune.images.square import FITS as FITS
from unitune.images.square import LoadedImage as LoadedImage
from unitune.images.square import box as box
from unitune.images.square import load as load
from unitune.images.square import load_mask as load_mask
from unitune.images.square import resize as resize
