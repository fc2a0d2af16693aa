"""The tests mirror localearn: tests/nets/test_conv.py, and test_conv_resnet.py, are of localearn/nets/conv.py."""
