-- ARGV: now, lease, then of each: "id mark"
local seconds = tonumber(ARGV[2])
for place = 3, #ARGV do
  local id, mark = string.match(ARGV[place], '^(%S+) (%S+)$')
  mark = tonumber(mark)
  local hold = load_hold(id)
  if hold and hold.state == 'H' then
    if mark > hold.mark then
      hold.mark = mark
      save_hold(id, hold, OPEN)
    end
    lease(id, seconds)
  end
end
