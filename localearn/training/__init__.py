from localearn.records import Record
from localearn.training.callbacks import Callback, Context
from localearn.training.fit import fit, train
from localearn.training.loading import load_net, load_rule
from localearn.training.settings import Settings

__all__ = ["Callback", "Context", "Record", "Settings", "fit", "load_net", "load_rule", "train"]
