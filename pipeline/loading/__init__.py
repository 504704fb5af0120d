"""Images from files and arrays to uint8 batches, in processes of its own.

A worker imports Pillow and numpy, and of this package only `loading` and the preprocess: it starts in a
fraction of a second and takes little memory. (One that makes augmented views imports torchvision and torch besides.)
A decoder that crashes, hangs or eats memory takes its worker with it; the loader starts another and gives it the same
images one by one, so that it costs the culprit alone.

memory   memory shared between loader and workers, which vanishes with them
decode   bytes to pixels, safely
worker   the process
process  a worker as its parent has it
loader   the parent's side
"""
