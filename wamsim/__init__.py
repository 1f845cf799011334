"""wamsim: does a world-action model do the task, and did it see coming what happened?"""
