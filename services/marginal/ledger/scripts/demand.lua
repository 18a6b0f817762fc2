-- ARGV: now, the seconds that a router is believed for, its name, its demand; answers what the others have up
local key, seconds, router = TAG .. ':demand', tonumber(ARGV[2]), ARGV[3]
call('HSET', key, router, format('%.3f ', NOW) .. ARGV[4])
call('EXPIRE', key, ceil(seconds))
local rows, others = call('HGETALL', key), {}
for place = 1, #rows, 2 do
  local at, text = string.match(rows[place + 1], '^(%S+) (.*)$')
  at = tonumber(at or '')
  if not at or at < NOW - seconds then
    call('HDEL', key, rows[place])
  elseif rows[place] ~= router then
    others[#others + 1] = text
  end
end
return others
