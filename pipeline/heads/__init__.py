"""Stage 2: heads on cached features. Never imports torchvision.

linear     the linear head as a value, its file, its logits
minibatch  the minibatch recipe, equal to a plain PyTorch loop bit for bit
"""
