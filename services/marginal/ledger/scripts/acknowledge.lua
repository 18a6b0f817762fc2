-- ARGV: now, then ids of expired holds whose records were written
for place = 2, #ARGV do
  local id = ARGV[place]
  if call('ZREM', TAG .. ':expired', id) == 1 then call('EXPIRE', TAG .. ':hold:' .. id, REMEMBERED) end
end
