from localearn.nets.cnn import CNN
from localearn.nets.gnn import GNN
from localearn.nets.mlp import MLP
from localearn.nets.net import Block, Net

__all__ = ["CNN", "GNN", "MLP", "Block", "Net"]
