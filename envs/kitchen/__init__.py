"""The kitchen suite: ours, in the style of RoboCasa, built in code, nothing to download.

A Panda on a mobile base with a lift does 24 atomic tasks in kitchens of six layouts and six
styles: doors, drawers, knobs, levers, buttons, and food carried between counter, cabinet,
sink, stove, microwave and coffee machine. Names, wordings, step limits and success rules
follow RoboCasa v0.2; scenes, objects, robot base and therefore scores do not.

`kitchen_mobile` has one task more, which needs the base: driving from unit to unit (`mobile`).

From a number to what it is made of: `suite` (what the harness sees), `tasks` (words, goals,
what a trial draws), `placement` (where things start), `scenes` (units put together),
`layouts` (where units and robot stand), `units` and their builders, `styles` (surfaces).
"""
