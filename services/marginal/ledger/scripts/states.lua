-- ARGV: now, then ids; of each the letter of its state, "" of one that is not known
local states = {}
for place = 2, #ARGV do
  local hold = load_hold(ARGV[place])
  states[#states + 1] = hold and hold.state or ''
end
return states
