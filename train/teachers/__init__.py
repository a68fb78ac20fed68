"""Frozen image networks that teach: images in [0, 1] -> a map of features. Never trained, never in a checkpoint."""

from brickyard.train.teachers.load import TeacherConfig as TeacherConfig
from brickyard.train.teachers.load import load_teacher as load_teacher
from brickyard.train.teachers.teacher import Teacher as Teacher
