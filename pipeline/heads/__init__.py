"""Stage 2: heads on cached features. Never imports torchvision.

settings    the recipe as one value
head        what every head is; files: heads read back
transform   what features go through before a head
linear      the linear head; mlp: one hidden layer; neighbours: k-NN
minibatch   the minibatch recipe, equal to a plain PyTorch loop bit for bit
logistic    logistic regression to its optimum, by curvature and objective; closed: ridge and class means
fit         from features and a recipe to a head
"""
