"""Models on disk: the card, the files that it vouches for, and where they are found."""

from depth_node.model_folder.card import CARD_FORMAT as CARD_FORMAT
from depth_node.model_folder.card import CARD_NAME as CARD_NAME
from depth_node.model_folder.card import WEIGHTS_NAME as WEIGHTS_NAME
from depth_node.model_folder.card import FileRecord as FileRecord
from depth_node.model_folder.card import InputSpec as InputSpec
from depth_node.model_folder.card import ModelCard as ModelCard
from depth_node.model_folder.card import OutputSpec as OutputSpec
from depth_node.model_folder.folder import ModelFolder as ModelFolder
from depth_node.model_folder.folder import read as read
from depth_node.model_folder.folder import read_card as read_card
from depth_node.model_folder.folder import write as write
from depth_node.model_folder.store import find as find
from depth_node.model_folder.store import installed as installed
