"""A head of your own in plain PyTorch, saved as a run that evaluate, predict, export and fuse take.

Run it in a folder with a cache: pipeline extract digits --backbone resnet18
"""

import torch
from torch import nn
from torch.nn import functional

import pipeline

features = pipeline.open_cache("latest")
train = torch.from_numpy(features.rows("train"))
x, y = features.x[train], features.y[train]

torch.manual_seed(0)
head = nn.Sequential(nn.Linear(x.shape[1], 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, len(features.classes)))
optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-2)
for _ in range(20):
    for rows in torch.randperm(len(x)).split(64):
        noisy = x[rows] + 0.01 * torch.randn(len(rows), x.shape[1])  # whatever you like: it is your loop
        loss = functional.cross_entropy(head(noisy), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

run = pipeline.save_head(head, features.cache, name="mine")
print(f"run {run.id}: {pipeline.evaluate(run.id).metrics['accuracy']:.3f}")
