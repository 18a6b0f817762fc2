-- ARGV: now, then ids; of each the letter of its state, U of one settled but not for good, "" of one that is not known
local states = {}
for place = 2, #ARGV do
  local hold = load_hold(ARGV[place])
  states[#states + 1] = not hold and '' or hold.state == 'S' and not hold.final and 'U' or hold.state
end
return states
