"""The bimanual suites: ours, in the style of RoboTwin, built in code, nothing to download.

Two ViperX arms face each other across a table; twelve tasks that need or reward both. The
tasks' rules and step limits follow RoboTwin's; scenes, robots' dynamics and scores do not.
"""
