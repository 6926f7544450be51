-- The next unique number of a table.
local rows, about = unpack(KEYS)
if redis.call('HEXISTS', about, 'exists') ~= redis.call('HEXISTS', rows, '\255') then
    return {2}
end
return redis.call('HINCRBY', about, 'unique', 1)
