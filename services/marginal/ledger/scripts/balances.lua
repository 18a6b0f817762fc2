-- ARGV: now, then tenants; of each window of now and each tenant: period, committed, held
local found = {}
for place = 2, #ARGV do
  for _, period in ipairs(periods(NOW)) do
    local money = call('HMGET', money_key(ARGV[place], period), 'c', 'h')
    found[#found + 1] = { period, money[1] or '0', money[2] or '0' }
  end
end
return found
