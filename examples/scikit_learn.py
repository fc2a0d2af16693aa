"""A rule as a scikit-learn estimator: `python examples/scikit_learn.py`.

Pipelines, grid searches, cross-validation, pandas and joblib know nothing of localearn.
"""

from sklearn.datasets import load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline

from localearn.sklearn import RuleClassifier, RuleRegressor

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)

model = make_pipeline(PCA(40), RuleClassifier("mono_forward", net_options={"widths": (64, 64)}, random_state=0))
grid = {
    "ruleclassifier__rule": ["mono_forward", "direct_feedback_alignment", "backprop"],
    "ruleclassifier__lr": [0.001, 0.005],
}
search = GridSearchCV(model.set_params(ruleclassifier__epochs=8), grid, cv=2).fit(x_train, y_train)
print("best:", search.best_params_)
print(f"test accuracy {search.score(x_test, y_test):.3f}")
best = search.best_estimator_[-1]
print(f"{best.record_.parameters:,} parameters trained in {best.record_.train_s:.2f} s")
print("probabilities of the first row:", search.predict_proba(x_test[:1]).round(3))

x, y = load_diabetes(return_X_y=True, as_frame=True)
regressor = RuleRegressor("mono_forward", net_options={"widths": (32,)}, lr=0.003, epochs=30, random_state=0)
print("r2 of five folds:", cross_val_score(regressor, x, y).round(2))
print("columns that it saw:", *regressor.fit(x, y).feature_names_in_)
