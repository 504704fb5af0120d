"""Cached features in scikit-learn: any estimator, on plain arrays.

Run it in a folder with a cache: pipeline extract digits --backbone resnet18
"""

from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pipeline

features = pipeline.open_cache("latest")
x_train, y_train = features.numpy("train")
x_test, y_test = features.numpy("test")

search = GridSearchCV(
    make_pipeline(StandardScaler(), RidgeClassifier()), {"ridgeclassifier__alpha": [10, 100, 1000, 10_000]}, cv=3
)
search.fit(x_train, y_train)
print(f"{search.best_params_}: {search.score(x_test, y_test):.3f}")
