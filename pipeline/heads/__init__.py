"""Stage 2: heads on cached features. Never imports torchvision.

head        what every head is: a Protocol
transform   L2 norm and standardisation, fitted on train rows
modules     the small torch modules that heads are made of
linear, mlp, neighbours   heads as values
tuned       a linear head and the layers trained together with it
files, reading   a head as safetensors and JSON, and back
settings    the recipe, and which options belong to which solver
minibatch   the minibatch recipe, equal to a plain PyTorch loop bit for bit
direct      its steps for a linear head, without autograd
blocks      rows of several batches gathered ahead
batched     many linear heads on the same batches; group and updates are its parts
trials      heads of many settings, and how each does on validation rows
balance     class weights and balanced batches
logistic    multinomial logistic regression to its certified optimum
objective, curvature   its derivatives, and the preconditioner that makes it quick
ridge, centroid   scores in closed form
calibration   the one number that makes probabilities of scores
solvers     from settings to a head
own         torch modules and arrays of the user's as heads
"""
